package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// memoryLimit is what the garbage collector aims at, in bytes: a gateway of 64 wires is to stay below 30 MB.
const memoryLimit = 20 << 20

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
	case os.Getpid() == 1:
		err = supervise()
	default:
		debug.SetMemoryLimit(memoryLimit)
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		err = Run(ctx, config, zerolog.New(os.Stderr).With().Timestamp().Logger())
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
		for alive := true; alive; {
			switch <-signals {
			case syscall.SIGCHLD:
				alive = !reaped(worker.Process.Pid)
			case syscall.SIGHUP: // the program was renewed
				_ = worker.Process.Signal(syscall.SIGTERM)
			case syscall.SIGINT:
				return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
			default:
				return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
			}
		}
		fmt.Fprintln(os.Stderr, "gateway: it ended; it is started again")
		if lived := time.Since(started); lived < time.Second { // what can't start is not tried without a pause
			time.Sleep(time.Second - lived)
		}
	}
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
