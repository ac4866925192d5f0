// Boots a guest in v86, as npm has it, with its network card on a relay:
//
//     node v86-guest.mjs RELAY-URL ORIGIN KERNEL INITRD TEXT SECONDS
//
// ORIGIN is that of the page that a browser would have loaded the emulator from.
// KERNEL (a bzImage) finds INITRD in memory. When a line on the guest's screen begins with TEXT, or SECONDS are
// over, the screen is printed and the program ends; its status is 1 if there was no such line.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { V86 } from "v86";
import { WebSocket } from "ws";

const [relay, origin, kernel, initrd, text, seconds] = process.argv.slice(2);
const firmware = "/usr/share/seabios";
const built = dirname(createRequire(import.meta.url).resolve("v86/build/libv86.mjs"));

// Browsers have one, Node.js has one from version 22 on; of these, only a browser's sends an Origin.
globalThis.WebSocket = class extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, { origin });
  }
};

// v86 reads a kernel as 32-bit words, so there may be no part of one at its end.
function padded(path) {
  const file = readFileSync(path);
  const bytes = new Uint8Array(Math.ceil(file.length / 4) * 4);
  bytes.set(file);
  return bytes.buffer;
}

const emulator = new V86({
  wasm_path: join(built, "v86.wasm"),
  memory_size: 128 << 20, // v86 puts the initrd at 64 MiB
  bios: { url: join(firmware, "bios.bin") },
  vga_bios: { url: join(firmware, "vgabios-stdvga.bin") },
  bzimage: { buffer: padded(kernel) },
  initrd: { url: initrd },
  cmdline: "",
  disable_speaker: true,
  autostart: true,
  net_device: { type: "ne2k", relay_url: relay },
});

await new Promise((started) => emulator.add_listener("emulator-started", started));
const found = await emulator.wait_until_vga_screen_contains(text, { timeout_msec: Number(seconds) * 1000 });
const screen = emulator.screen_adapter.get_text_screen().map((line) => line.trimEnd());
process.stdout.write(`${screen.join("\n")}\n`, () => process.exit(found ? 0 : 1));
