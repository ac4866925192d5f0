// A guest without a machine: gVisor's network stack, straight on a tunnel.
//
//	gvisor URL ORIGIN WEB [SECONDS]
//
// opens the tunnel at URL, tries everything once and prints a line for each check, as the Linux guests do:
// "AERO-CHECK <name> ok|failed <what was seen>". WEB is the address of the world's web server. Exit status 0 when
// every check is ok, 1 otherwise, 2 for a wrong call. It ends after SECONDS (170), whatever the server does.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"
)

const (
	// For the checks; a tenth of it is usual on a busy machine.
	deadline = 150 * time.Second
	// For everything, the handshakes at both ends too.
	wholeSeconds = 170
)

func main() {
	seconds, err := wholeSeconds, error(nil)
	if len(os.Args) == 5 {
		seconds, err = strconv.Atoi(os.Args[4])
	}
	if len(os.Args) < 4 || len(os.Args) > 5 || err != nil {
		fmt.Fprintln(os.Stderr, "usage: gvisor URL ORIGIN WEB [SECONDS]")
		os.Exit(2)
	}
	endAfter(time.Duration(seconds) * time.Second)
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "gvisor:", err)
		os.Exit(1)
	}
}

// endAfter is for a server that sends a byte now and then, which would be waited for without end.
func endAfter(limit time.Duration) {
	time.AfterFunc(limit, func() {
		fmt.Fprintln(os.Stderr, "gvisor: not done after", limit)
		os.Exit(1)
	})
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
