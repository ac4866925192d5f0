"""The audit log: who sent what where, a JSON object a line, without a byte of payload (docs/audit.md).

`files` and `writer` bring lines to disk from a thread; `log` is what the process has one of, `session` what
each tunnel has; `flows`, `denials` and `tally` decide, without a clock, what is a line of its own.
"""
