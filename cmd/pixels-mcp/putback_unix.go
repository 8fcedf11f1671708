//go:build unix

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"pixels/internal/program"
)

// putBackScript waits for a word on its stdin. When that ends without one, whoever was to say it is dead, and the terminal (3) is put back:
// its settings unless a shell has done so already, and what was set on the screen.
const putBackScript = `trap '' INT QUIT HUP TERM TTOU TSTP
read -r word && exit
[ "$(stty -g <&3)" = "$1" ] && stty "$2" <&3
printf '%s' "$3" >&3`

// keeper puts a terminal back when this process can't: it was killed, or crashed.
type keeper struct{ word io.WriteCloser }

// settings are those of a terminal, as stty(1) writes and reads them.
func settings(tty *os.File) (string, error) {
	stty := exec.Command("stty", "-g")
	stty.Stdin = tty
	out, err := stty.Output()
	return strings.TrimSpace(string(out)), err
}

// keep starts a keeper of a terminal that is in raw mode now, and had other settings before. Where it can't, there is none: this process
// puts the terminal back as long as it lives.
func keep(tty *os.File, before string) *keeper {
	raw, err := settings(tty)
	if err != nil || before == "" {
		return nil
	}
	c := exec.Command("sh", "-c", putBackScript, program.Name, raw, before, modesOff)
	c.ExtraFiles = []*os.File{tty}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what the terminal sends to this process is not for it
	word, err := c.StdinPipe()
	if err != nil || c.Start() != nil {
		return nil
	}
	go func() { _ = c.Wait() }() // how it ends says nothing
	return &keeper{word}
}

// dismiss says that the terminal was put back.
func (k *keeper) dismiss() {
	if k == nil {
		return
	}
	fmt.Fprintln(k.word, "done")
	_ = k.word.Close()
}

// onResize has a channel hear of each new size of the terminal.
func onResize(changed chan<- os.Signal) { signal.Notify(changed, syscall.SIGWINCH) }
