package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

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
