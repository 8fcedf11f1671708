package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// exhaust takes as much as it can get of what sandboxes share, up to a number, and holds it for a moment.
func exhaust(what, most string) (string, error) {
	n, err := strconv.Atoi(most)
	if err != nil {
		return "", err
	}
	had := 0
	switch what {
	case "inotify":
		for ; had < n; had++ {
			if _, err = unix.InotifyInit(); err != nil {
				break
			}
		}
	case "keys":
		for ; had < n; had++ {
			if _, err = unix.AddKey("user", fmt.Sprint("k", had), make([]byte, 1000), unix.KEY_SPEC_SESSION_KEYRING); err != nil {
				break
			}
		}
	case "processes":
		for ; had < n; had++ {
			c := exec.Command("sleep", "2")
			if err = c.Start(); err != nil {
				break
			}
			defer c.Process.Kill()
		}
	case "neighbours":
		card, err := netlink.LinkByName("eth0")
		if err != nil {
			return "", err
		}
		for until := time.Now().Add(time.Second); had < n; had++ {
			a := net.IPv4(10, byte(had>>16), byte(had>>8), byte(had)).To4()
			err := netlink.NeighSet(&netlink.Neigh{LinkIndex: card.Attrs().Index, Family: unix.AF_INET, State: unix.NUD_REACHABLE, IP: a, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}})
			if err != nil {
				if time.Now().After(until) {
					break
				}
				time.Sleep(time.Millisecond)
			}
		}
		// It stays full for some seconds: what the kernel makes room for is taken again.
		fmt.Println("full at", had)
		for until := time.Now().Add(8 * time.Second); time.Now().Before(until); had++ {
			a := net.IPv4(11, byte(had>>16), byte(had>>8), byte(had)).To4()
			_ = netlink.NeighSet(&netlink.Neigh{LinkIndex: card.Attrs().Index, Family: unix.AF_INET, State: unix.NUD_REACHABLE, IP: a, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}})
		}
	case "memory": // in a child, which the kernel ends
		err = exec.Command("sh", "-c", "head -c 1g /dev/zero | tail").Run()
	case "disk":
		var f *os.File
		if f, err = os.Create("/root/full"); err != nil {
			return "", err
		}
		block := make([]byte, 1<<20)
		for ; had < 4096; had++ {
			if _, err = f.Write(block); err != nil {
				break
			}
		}
		_ = f.Close()
	}
	time.Sleep(200 * time.Millisecond)
	return fmt.Sprintf("%d of %d\n", had, n), err
}
