// The demo page's code without a browser: demo-guest.mjs FOLDER ADDRESS ORIGIN KEY HOST
//
// FOLDER has demo.mjs and stack.mjs, and in ca.pem the certificate of the edge at ADDRESS. Prints what the page would.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { WebSocket } from "ws";

const [folder, address, origin, key, host] = process.argv.slice(2);
const { openTunnel, walk } = await import(pathToFileURL(join(folder, "demo.mjs")));
const name = new URL(origin).host;
const options = { origin, ca: readFileSync(join(folder, "ca.pem")), lookup: undefined, headers: { Host: name }, servername: name };

class Socket extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, options);
  }
}

const tunnel = await openTunnel(Socket, `wss://${address}:8443/l2`, key, () => {});
try {
  await walk(tunnel.guest, host, console.log);
} finally {
  tunnel.close();
}
