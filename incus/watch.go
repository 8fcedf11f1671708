package incus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/egress/gateway"
	"pixels/internal/guest"
	"pixels/sandbox"
)

// watched is how many events wait at most to be told.
const watched = 4096

// Watch implements sandbox.Backend. It hears of the configured network's gateway alone.
func (b *Backend) Watch(ctx context.Context, hear func(sandbox.Connection)) error {
	events := make(chan gateway.Event, watched)
	channel, err := speakToGateway(ctx, b.server, b.wires.name, func(e gateway.Event) {
		select {
		case events <- e:
		default: // the numbers of what was heard show that some were missed
		}
	})
	if missing(err) {
		err = errNoGateway(b.wires.name)
	}
	if err != nil {
		return b.failed(err, "watch the gateway")
	}
	defer channel.Close()
	asking, cancel := context.WithTimeout(ctx, answerTime)
	_, err = channel.Do(asking, gateway.Request{Op: gateway.Watch, Answers: true})
	cancel()
	if err != nil {
		return b.failed(err, "watch the gateway")
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-channel.Done():
			return b.failed(gateway.ErrGone, "watch the gateway")
		case e := <-events:
			if c, ok := b.connection(ctx, e); ok {
				hear(c)
			}
		}
	}
}

// connection tells whose connection an event is about; not ok when that is no sandbox of ours.
func (b *Backend) connection(ctx context.Context, e gateway.Event) (c sandbox.Connection, ok bool) {
	k := b.cache.lately()[e.Sandbox]
	if k == nil {
		all, err := b.cache.instances(ctx)
		if err != nil || all[e.Sandbox] == nil {
			return c, false
		}
		k = all[e.Sandbox]
	}
	s := describe(&k.Instance)
	return sandbox.Connection{
		ID: s.ID, Owner: s.Owner, Sandbox: s.Name, Lineage: s.Lineage, Fate: sandbox.Fate(e.Verdict), Domain: e.Domain, Address: e.Address,
		Port: e.Port, From: e.From, Reason: e.Reason, Once: e.Once, Count: e.Count, At: e.Time,
	}, s.Name != ""
}

// Hold implements sandbox.Backend.
func (b *Backend) Hold(ctx context.Context, id, domain string, port uint16, d time.Duration) error {
	wires := b.wires
	if k := b.cache.lately()[id]; k != nil {
		wires = b.wiresOf(k.Config)
	}
	_, err := wires.ask(ctx, gateway.Request{Op: gateway.Keep, Sandbox: id, Domain: domain, Port: port, For: d})
	if errors.Is(err, gateway.ErrNoSandbox) {
		return nil
	}
	return b.failed(err, "hold a connection")
}

// whoTime bounds how long a sandbox may take to say whose a connection is.
const whoTime = 2 * time.Second

// Process implements sandbox.Backend.
func (b *Backend) Process(ctx context.Context, id string, port uint16) (command, call string, err error) {
	inst, err := b.execInstance(ctx, id)
	if err != nil {
		return "", "", err
	}
	program, err := b.program(ctx, &inst.Instance)
	if err != nil {
		return "", "", b.failed(err, "look for a process in sandbox %s", inst.Config[nameKey])
	}
	ctx, cancel := context.WithTimeout(ctx, whoTime)
	defer cancel()
	stdout, stderr := heard{most: saidMost}, heard{most: saidMost}
	argv := []string{program, "who", "-port", strconv.Itoa(int(port))}
	code, err := b.execPatiently(ctx, id, api.InstanceExecPost{Command: argv, Cwd: "/"}, nil, &stdout, &stderr, nil, time.Second)
	var who guest.Who
	if err == nil && code != 0 {
		err = errors.New(stderr.String())
	}
	if err == nil {
		err = json.Unmarshal(stdout.b.Bytes(), &who)
	}
	if err != nil {
		return "", "", b.failed(err, "look for a process in sandbox %s", inst.Config[nameKey])
	}
	if who.PID != 0 {
		command = fmt.Sprintf("%d %s", who.PID, who.Command)
	}
	return command, who.Call, nil
}

// Gateway implements sandbox.Backend.
func (b *Backend) Gateway() string {
	return cmp.Or(b.config.Remote, b.config.Socket, "local") + " " + b.config.Project + " " + b.wires.name
}
