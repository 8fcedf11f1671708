package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// Environment is the variable that has a gateway's Config, as JSON.
const Environment = "PIXELS_GATEWAY"

// ControlCommand is the argument with which the program joins its stdin and stdout to the control channel.
const ControlCommand = "control"

// RenewCommand is the argument with which the program takes its successor from stdin, and has the first process become it.
// The Version of the successor follows.
const RenewCommand = "renew"

// handOverSignal has a gateway leave what is new to its successor.
const handOverSignal = syscall.SIGUSR1

// programPath is where the first process's program lies.
const programPath = "/sbin/init"

// What the garbage collector aims at: a gateway of 64 wires is to stay below 30 MB, and one that is flooded below its
// instance's limit without collecting all the time.
const (
	gcPercent   = 50
	memoryLimit = 128 << 20 // in bytes
)

// Main is the program of a gateway's instance. As the first process it sees to it that a gateway serves, and starts it
// again when it died; nftables and the interfaces stay meanwhile, so that nothing gets out. It returns the exit code.
func Main(args []string) int {
	var config Config
	err := json.Unmarshal([]byte(os.Getenv(Environment)), &config)
	switch {
	case err != nil:
		err = fmt.Errorf("read the variable %s: %w", Environment, err)
	case len(args) > 1 && args[1] == ControlCommand:
		err = Relay(config.Socket, os.Stdin, os.Stdout)
	case len(args) > 2 && args[1] == RenewCommand:
		err = renew(os.Stdin, args[2])
	case os.Getpid() == 1:
		err = supervise()
	default:
		debug.SetGCPercent(gcPercent)
		debug.SetMemoryLimit(memoryLimit)
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		handOver, _ := signal.NotifyContext(context.Background(), handOverSignal)
		err = Run(ctx, handOver, config, zerolog.New(os.Stderr).With().Timestamp().Logger())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		return 1
	}
	return 0
}

// supervise is the life of the first process. It ends the instance when it is asked to.
func supervise() error {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGPWR, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	signal.Ignore(syscall.SIGPIPE)
	debug.SetGCPercent(20) // it allocates little and lives long
	for {
		started := time.Now()
		worker := exec.Command("/proc/self/exe", "serve")
		worker.Stdout, worker.Stderr = os.Stderr, os.Stderr
		if err := worker.Start(); err != nil {
			return fmt.Errorf("start the gateway: %w", err)
		}
		renewed := false
		for alive := true; alive; {
			switch <-signals {
			case syscall.SIGCHLD:
				alive = !reaped(worker.Process.Pid)
			case syscall.SIGHUP:
				renewed, alive = true, false
				_ = worker.Process.Signal(handOverSignal) // it lives on for the connections that it has
			case syscall.SIGINT:
				return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
			default:
				return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
			}
		}
		if renewed {
			return fmt.Errorf("become the new program: %w", unix.Exec(programPath, []string{programPath}, os.Environ()))
		}
		fmt.Fprintln(os.Stderr, "gateway: it ended; it is started again")
		if lived := time.Since(started); lived < time.Second { // what can't start is not tried without a pause
			time.Sleep(time.Second - lived)
		}
	}
}

// Version names a program by its content.
func Version(program []byte) string {
	sum := sha256.Sum256(program)
	return hex.EncodeToString(sum[:6])
}

// renew puts a program in the place of the first process's, whole or not at all, and has that become it.
func renew(from io.Reader, version string) error {
	program, err := io.ReadAll(from)
	if err != nil {
		return err
	}
	if got := Version(program); got != version {
		return fmt.Errorf("what came is %s (%d bytes), not the new program %s", got, len(program), version)
	}
	next, err := os.OpenFile(programPath+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = next.Write(program)
	err = errors.Join(err, next.Sync(), next.Close())
	if err == nil {
		err = os.Rename(next.Name(), programPath)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next.Name()))
	}
	return unix.Kill(1, unix.SIGHUP)
}

// reaped takes note of every process that ended, among them the orphans that the kernel hands to the first process, and
// tells whether pid was one.
func reaped(pid int) (found bool) {
	for {
		ended, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || ended <= 0 {
			return found
		}
		found = found || ended == pid
	}
}
