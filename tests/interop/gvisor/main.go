// A guest without a machine: gVisor's network stack, straight on a tunnel.
//
//	gvisor URL ORIGIN WEB
//
// opens the tunnel at URL, tries everything once and prints a line for each check, as the Linux guests do:
// "AERO-CHECK <name> ok|failed <what was seen>". WEB is the address of the world's web server. Exit status 0 when
// every check is ok, 1 otherwise, 2 for a wrong call.
package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// In all; a tenth of it is usual on a busy machine.
const deadline = 150 * time.Second

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: gvisor URL ORIGIN WEB")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "gvisor:", err)
		os.Exit(1)
	}
}

func run(url, origin, web string) error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	tunnel, err := openTunnel(ctx, url, origin)
	if err != nil {
		return err
	}
	guest, err := newGuest(tunnel.link)
	if err != nil {
		return err
	}
	tunnel.start(ctx)
	failed := checkAll(ctx, guest, web)
	if err := tunnel.close(); err != nil {
		return fmt.Errorf("closing the tunnel: %w", err)
	}
	if failed > 0 {
		return fmt.Errorf("%d checks failed", failed)
	}
	return nil
}
