// A guest's network in a page: Ethernet, ARP, DHCP, ping, DNS, and as much of TCP as one GET takes.
// It knows nothing of WebSockets: frames go out by the function it is given, and come in by receive().

const BROADCAST = [255, 255, 255, 255, 255, 255];
const ARP = 0x0806;
const IPV4 = 0x0800;
const ICMP = 1;
const TCP = 6;
const UDP = 17;
const FIN = 1;
const SYN = 2;
const RST = 4;
const PSH = 8;
const ACK = 16;
const text = new TextEncoder();
const same = (one, other) => one.length === other.length && one.every((byte, index) => byte === other[index]);
const u16 = (number) => [(number >>> 8) & 255, number & 255];
const u32 = (number) => [...u16(number >>> 16), ...u16(number)];
const at16 = (data, offset) => (data[offset] << 8) | data[offset + 1];
const at32 = (data, offset) => ((at16(data, offset) << 16) | at16(data, offset + 2)) >>> 0;
export const dotted = (address) => Array.from(address).join(".");

// RFC 1071.
function checksum(data) {
  let sum = 0;
  for (let index = 0; index < data.length; index += 2) sum += (data[index] << 8) + (data[index + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

export class Guest {
  constructor(send, mac = [2, 0, 0, 0, 0, 15]) {
    this.send = send;
    this.mac = mac;
    this.address = [0, 0, 0, 0];
    this.router = null; // its MAC address, once ARP has told it
    this.waiting = new Set();
    this.port = 49152 + Math.floor(Math.random() * 8192);
  }

  // --- Out ---

  #ethernet(to, type, payload) {
    this.send(Uint8Array.from([...to, ...this.mac, ...u16(type), ...payload]));
  }

  #ipv4(protocol, to, payload, mac) {
    const head = [0x45, 0, ...u16(20 + payload.length), 0, 0, 0x40, 0, 64, protocol, 0, 0, ...this.address, ...to];
    const sum = checksum(head);
    this.#ethernet(mac, IPV4, [...head.slice(0, 10), ...u16(sum), ...head.slice(12), ...payload]);
  }

  // Payload of UDP or TCP with its checksum, which stands at `offset` and covers the addresses, too.
  #sealed(protocol, to, segment, offset) {
    const pseudo = [...this.address, ...to, 0, protocol, ...u16(segment.length)];
    const sum = checksum([...pseudo, ...segment]) || 0xffff;
    return [...segment.slice(0, offset), ...u16(sum), ...segment.slice(offset + 2)];
  }

  #udp(to, source, destination, data, mac = this.router) {
    const datagram = [...u16(source), ...u16(destination), ...u16(8 + data.length), 0, 0, ...data];
    this.#ipv4(UDP, to, this.#sealed(UDP, to, datagram, 6), mac);
  }

  // --- In ---

  receive(frame) {
    const type = at16(frame, 12);
    const payload = frame.subarray(14);
    if (type === ARP && at16(payload, 6) === 1 && same(payload.subarray(24, 28), this.address)) {
      const asker = payload.subarray(8, 18);
      const answer = [0, 1, 8, 0, 6, 4, 0, 2, ...this.mac, ...this.address, ...asker];
      this.#ethernet(asker.subarray(0, 6), ARP, answer);
    }
    const packet = type === ARP ? { arp: payload } : type === IPV4 ? ipv4(payload) : {};
    for (const look of [...this.waiting]) look(packet);
  }

  // Say something, again each second, until `match` gives something other than undefined.
  #exchange(say, match, what, seconds = 10) {
    return new Promise((resolve, reject) => {
      let left = seconds;
      const end = (settle, value) => {
        clearInterval(timer);
        this.waiting.delete(look);
        settle(value);
      };
      const look = (packet) => {
        try {
          const found = match(packet);
          if (found !== undefined) end(resolve, found);
        } catch (error) {
          end(reject, error);
        }
      };
      const timer = setInterval(() => {
        left -= 1;
        if (left <= 0) end(reject, new Error(`${what}: no answer within ${seconds} s`));
        else say();
      }, 1000);
      this.waiting.add(look);
      say();
    });
  }

  // --- What a guest does ---

  // RFC 2131: DISCOVER, OFFER, REQUEST, ACK. The lease: address, router, dns, seconds.
  async lease() {
    const xid = Math.floor(Math.random() * 0xffffffff);
    const offer = await this.#dhcp(xid, [53, 1, 1], 2);
    const server = offer.options.get(54);
    const ack = await this.#dhcp(xid, [53, 1, 3, 54, 4, ...server, 50, 4, ...offer.address], 5);
    this.address = ack.address;
    const gateway = ack.options.get(3).slice(0, 4);
    this.router = await this.#resolveMac(gateway);
    this.dns = ack.options.get(6).slice(0, 4);
    return { address: this.address, router: gateway, dns: this.dns, seconds: at32(ack.options.get(51), 0) };
  }

  #dhcp(xid, options, wanted) {
    const head = [1, 1, 6, 0, ...u32(xid), 0, 0, 0x80, 0, ...Array(16).fill(0), ...this.mac, ...Array(202).fill(0)];
    const message = [...head, 99, 130, 83, 99, ...options, 55, 3, 1, 3, 6, 255];
    const match = ({ udp }) => {
      if (udp?.destination !== 68 || at32(udp.data, 4) !== xid) return undefined;
      const found = dhcpOptions(udp.data.subarray(240));
      const kind = found.get(53)?.[0];
      if (kind === 6) throw new Error("DHCP: the server refuses (NAK)");
      return kind === wanted ? { address: [...udp.data.subarray(16, 20)], options: found } : undefined;
    };
    return this.#exchange(() => this.#udp([255, 255, 255, 255], 68, 67, message, BROADCAST), match, "DHCP");
  }

  #resolveMac(address) {
    const question = [0, 1, 8, 0, 6, 4, 0, 1, ...this.mac, ...this.address, 0, 0, 0, 0, 0, 0, ...address];
    const match = ({ arp }) =>
      arp && at16(arp, 6) === 2 && same(arp.subarray(14, 18), address) ? [...arp.subarray(8, 14)] : undefined;
    return this.#exchange(() => this.#ethernet(BROADCAST, ARP, question), match, "ARP");
  }

  // Milliseconds until the echo comes back.
  async ping(address) {
    const id = this.port++;
    const echo = [8, 0, 0, 0, ...u16(id), 0, 1, ...text.encode("aero-l2 demo")];
    const packet = [...echo.slice(0, 2), ...u16(checksum(echo)), ...echo.slice(4)];
    const began = performance.now();
    const match = ({ icmp }) => (icmp && icmp[0] === 0 && at16(icmp, 4) === id ? true : undefined);
    await this.#exchange(() => this.#ipv4(ICMP, address, packet, this.router), match, `ping of ${dotted(address)}`);
    return performance.now() - began;
  }

  // RFC 1035: the first address of a name.
  resolve(name) {
    const port = this.port++;
    const labels = name.replace(/\.$/, "").split(".");
    const asked = labels.flatMap((label) => [label.length, ...text.encode(label)]);
    const query = [...u16(port), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...asked, 0, 0, 1, 0, 1];
    const match = ({ udp }) =>
      udp?.destination === port && at16(udp.data, 0) === port ? firstAddress(udp.data, name) : undefined;
    return this.#exchange(() => this.#udp(this.dns, port, 53, query), match, `DNS of ${name}`);
  }

  // GET by HTTP/1.0 on port 80: everything that comes until the server closes, as text.
  get(address, host, path) {
    const source = this.port++;
    const request = [...text.encode(`GET ${path} HTTP/1.0\r\nHost: ${host}\r\n\r\n`)];
    const start = Math.floor(Math.random() * 0x7fffffff);
    const body = [];
    let next = null; // what we expect of the server
    const segment = (sequence, flags, data = [], options = []) => {
      const offset = (5 + options.length / 4) << 4;
      const ports = [...u16(source), ...u16(80)];
      const head = [...ports, ...u32(sequence), ...u32(next ?? 0), offset, flags, ...u16(0xfaf0), 0, 0, 0, 0, ...options];
      this.#ipv4(TCP, address, this.#sealed(TCP, address, [...head, ...data], 16), this.router);
    };
    const ask = () => segment(start + 1, ACK | PSH, request);
    const say = () => (next === null ? segment(start, SYN, [], [2, 4, ...u16(1460)]) : ask());
    const match = ({ tcp }) => {
      if (tcp?.source !== 80 || tcp.destination !== source) return undefined;
      if (tcp.flags & RST) throw new Error(`${host}: the connection is refused or reset; what may be reached is policy`);
      if (tcp.flags & SYN && next === null) {
        next = (tcp.sequence + 1) >>> 0;
        ask();
        return undefined;
      }
      if (next === null || (!tcp.data.length && !(tcp.flags & FIN))) return undefined;
      if (tcp.sequence === next) {
        for (const byte of tcp.data) body.push(byte);
        next = (next + tcp.data.length + (tcp.flags & FIN ? 1 : 0)) >>> 0;
      }
      const done = tcp.flags & FIN && tcp.sequence + tcp.data.length + 1 >>> 0 === next;
      segment(start + 1 + request.length, done ? FIN | ACK : ACK);
      return done ? new TextDecoder().decode(Uint8Array.from(body)) : undefined;
    };
    return this.#exchange(say, match, `HTTP of ${host}`, 20);
  }
}

function ipv4(packet) {
  const head = (packet[0] & 15) * 4;
  const payload = packet.subarray(head, at16(packet, 2));
  if (packet[9] === ICMP) return { icmp: payload };
  const ports = { source: at16(payload, 0), destination: at16(payload, 2) };
  if (packet[9] === UDP) return { udp: { ...ports, data: payload.subarray(8) } };
  if (packet[9] !== TCP) return {};
  const data = payload.subarray((payload[12] >>> 4) * 4);
  return { tcp: { ...ports, sequence: at32(payload, 4), flags: payload[13], data } };
}

function dhcpOptions(data) {
  const found = new Map();
  for (let index = 0; index < data.length && data[index] !== 255; ) {
    if (data[index] === 0) {
      index += 1;
      continue;
    }
    const size = data[index + 1];
    found.set(data[index], [...data.subarray(index + 2, index + 2 + size)]);
    index += 2 + size;
  }
  return found;
}

function firstAddress(message, name) {
  const rcode = message[3] & 15;
  if (rcode !== 0) throw new Error(`DNS of ${name}: ${{ 2: "SERVFAIL", 3: "no such name", 5: "refused" }[rcode] ?? rcode}`);
  const skip = (offset) => {
    while (message[offset] !== 0) {
      if (message[offset] >= 192) return offset + 2;
      offset += 1 + message[offset];
    }
    return offset + 1;
  };
  let offset = skip(12) + 4;
  for (let left = at16(message, 6); left > 0; left -= 1) {
    offset = skip(offset);
    const size = at16(message, offset + 8);
    if (at16(message, offset) === 1 && size === 4) return [...message.subarray(offset + 10, offset + 14)];
    offset += 10 + size;
  }
  throw new Error(`DNS of ${name}: no address`);
}
