module aero-l2/tests/interop/gvisor

go 1.24.0

require (
	github.com/coder/websocket v1.8.15
	github.com/insomniacslk/dhcp v0.0.0-20251020182700-175e84fbb167
	golang.org/x/net v0.48.0
	gvisor.dev/gvisor v0.0.0-20240916094835-a174eb65023f
)

require (
	github.com/google/btree v1.1.2 // indirect
	github.com/josharian/native v1.1.0 // indirect
	github.com/pierrec/lz4/v4 v4.1.14 // indirect
	github.com/u-root/uio v0.0.0-20230220225925-ffce2a382923 // indirect
	golang.org/x/sys v0.39.0 // indirect
	golang.org/x/time v0.5.0 // indirect
)
