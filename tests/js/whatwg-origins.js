// A line of JSON in, a line of JSON out: for an array of texts the origin of each by whatwg-url, null where it
// refuses the text.
"use strict";

const { createInterface } = require("node:readline");
const { URL } = require("whatwg-url");

const origin = (text) => (URL.canParse(text) ? new URL(text).origin : null);

createInterface({ input: process.stdin }).on("line", (line) => {
  process.stdout.write(`${JSON.stringify(JSON.parse(line).map(origin))}\n`);
});
