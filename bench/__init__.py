"""The measurements behind the figures in docs/performance.md: `./dev bench`.

options, settings, outputs    the command line and what is wrong with it; files, and whose they are
figures, document, compare    values, medians and tables; one run as JSON; two of them side by side. Pure
page, plots                   the tables and plots of docs/
machine, clocks               what it ran on; processor time of processes
wire, beginning, tls          the way to a tunnel and a lease, by one deadline
card.c, guests                a guest on a tunnel, and one that is wired straight to slirp4netns
peer, traffic                 what is at both ends: on the test internet, and on the guest
lab                           the closed world with a server in it, or a server elsewhere
transfers, latency, packets, opening, memory, many    what is measured, a table each
run                           all of it, interleaved

By themselves: load.py (what a flood costs others), client.py, receive_path.py, flow_events.py.
"""
