package guest

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Who is the process behind a connection, as the sandbox itself says: root in it can make it say anything.
type Who struct {
	PID     int    `json:"pid,omitempty"`
	Command string `json:"command,omitempty"` // with its arguments
	Call    string `json:"call,omitempty"`    // what CallVariable is in its environment
}

// CallVariable names, in the environment of a command and of all that it starts, the call that started it.
const CallVariable = "PIXELS_CALL"

// commandBytes bounds how much of a command is told.
const commandBytes = 300

// runWho writes which process has the socket with a local TCP port; nothing where none is found.
func runWho(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("who", flag.ContinueOnError)
	port := flags.Uint("port", 0, "local TCP port")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(who(uint16(*port)))
}

func who(port uint16) (w Who) {
	inode := inodeOf(port)
	if inode == "" {
		return w
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != "socket:["+inode+"]" {
			continue
		}
		dir := filepath.Dir(filepath.Dir(link))
		w.PID, _ = strconv.Atoi(filepath.Base(dir))
		command, _ := os.ReadFile(filepath.Join(dir, "cmdline")) // what can't be read isn't told
		command = bytes.TrimRight(command, "\x00")
		w.Command = string(bytes.ReplaceAll(command[:min(len(command), commandBytes)], []byte{0}, []byte{' '}))
		environ, _ := os.ReadFile(filepath.Join(dir, "environ"))
		for _, v := range strings.Split(string(environ), "\x00") {
			if call, ok := strings.CutPrefix(v, CallVariable+"="); ok && len(call) <= 64 {
				w.Call = call
			}
		}
		return w
	}
	return w
}

// inodeOf returns the inode of the socket with a local port, from /proc/net/tcp and tcp6: the second field is ADDRESS:PORT
// in hexadecimal, the tenth the inode (see proc_pid_net(5)).
func inodeOf(port uint16) string {
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, _ := os.ReadFile(file) // where there is no such protocol there is no such file
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) > 9 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) && f[9] != "0" {
				return f[9]
			}
		}
	}
	return ""
}
