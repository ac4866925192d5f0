// The page: opens a tunnel of aero-l2-tunnel-v1 to where it comes from, and walks through what a guest needs.

import { Guest, dotted } from "./stack.js";

const PROTOCOL = "aero-l2-tunnel-v1";
const HEAD = [0xa2, 0x03];
const FRAME = 0;
const PING = 1;
const PONG = 2;
const ERROR = 0x7f;

// A tunnel: `guest` gets its frames. Resolves once it is open; `closed` is told why it ended.
export function openTunnel(Socket, url, key, closed) {
  const protocols = key ? [PROTOCOL, `aero-l2-token.${key}`] : [PROTOCOL];
  const socket = new Socket(url, protocols);
  socket.binaryType = "arraybuffer";
  const guest = new Guest((frame) => socket.send(Uint8Array.from([...HEAD, FRAME, 0, ...frame])));
  let said = "";
  socket.onmessage = ({ data }) => {
    const message = new Uint8Array(data);
    const payload = message.subarray(4);
    if (message[0] !== HEAD[0] || message[1] !== HEAD[1]) return;
    if (message[2] === FRAME) guest.receive(payload);
    else if (message[2] === PING) socket.send(Uint8Array.from([...HEAD, PONG, 0, ...payload]));
    else if (message[2] === ERROR) said = new TextDecoder().decode(payload.subarray(4));
  };
  return new Promise((resolve, reject) => {
    socket.onopen = () => resolve({ guest, close: () => socket.close() });
    socket.onclose = ({ code, reason }) => {
      const why = said || reason || `close code ${code}`;
      reject(new Error(`the tunnel was not opened (${why}): is the key right?`));
      closed(why);
    };
  });
}

// One line for each step, to `tell`.
export async function walk(guest, host, tell) {
  const lease = await guest.lease();
  tell(`lease  ${dotted(lease.address)}, router ${dotted(lease.router)}, DNS ${dotted(lease.dns)}, ${lease.seconds} s`);
  tell(`ping   ${dotted(lease.router)} in ${(await guest.ping(lease.router)).toFixed(1)} ms`);
  const address = await guest.resolve(host);
  tell(`DNS    ${host} is ${dotted(address)}`);
  const answer = await guest.get(address, host, "/");
  const [head, body = ""] = answer.split(/\r?\n\r?\n/, 2);
  tell(`HTTP   ${head.split(/\r?\n/, 1)[0]}, ${body.length} characters`);
  return body;
}

async function run(document, key, host, output) {
  const tell = (line) => output.append(`${line}\n`);
  output.textContent = "";
  let tunnel = null;
  try {
    const url = `${document.location.origin.replace(/^http/, "ws")}/l2`;
    tunnel = await openTunnel(WebSocket, url, key, (why) => tell(`closed ${why}`));
    tell(`open   ${url}`);
    tell(`\n${(await walk(tunnel.guest, host, tell)).slice(0, 2000)}`);
  } catch (error) {
    tell(`FAILED ${error.message}`);
  } finally {
    tunnel?.close();
  }
}

if (globalThis.document) {
  const form = document.querySelector("form");
  const given = new URLSearchParams(document.location.hash.slice(1)).get("key");
  if (given) {
    form.key.value = given; // behind the #, it is sent to nobody; nor does it stay in the address bar
    history.replaceState(null, "", document.location.pathname);
  }
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    form.button.disabled = true;
    await run(document, form.key.value.trim(), form.host.value.trim(), document.querySelector("output"));
    form.button.disabled = false;
  });
}
