package incus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/lxc/incus/v6/shared/api"

	"pixels/egress/gateway"
	"pixels/internal/fault"
	"pixels/internal/guestbin"
)

// gatewayProgram is where the gateway's program lies in its instance.
const gatewayProgram = "/sbin/init"

// speakToGateway opens the control channel of a gateway: a command in its instance that stays. events, unless it is nil,
// hears of what the gateway reports.
func speakToGateway(ctx context.Context, server *daemon, name string, events func(gateway.Event)) (*gateway.Client, error) {
	_, s, err := command(ctx, server, name, api.InstanceExecPost{Command: []string{gatewayProgram, gateway.ControlCommand}})
	if err != nil {
		return nil, fmt.Errorf("speak to the gateway %s: %w", name, err)
	}
	requests, stdin := io.Pipe()
	stdout, replies := io.Pipe()
	go func() {
		said := &heard{most: saidMost}
		err := s.carry(requests, replies, said)
		if text := said.String(); text != "" {
			err = errors.New(text)
		}
		_ = replies.CloseWithError(err) // nil is an end
		_ = requests.Close()
		s.close()
	}()
	return gateway.NewClient(&channel{stdout, stdin, s}, events), nil
}

// channel is both directions of a command's streams.
type channel struct {
	*io.PipeReader
	stdin   *io.PipeWriter
	streams *streams
}

func (c *channel) Write(p []byte) (int, error) { return c.stdin.Write(p) }

// Close ends the command, too, which may be paused and read no end.
func (c *channel) Close() error {
	c.streams.close()
	return errors.Join(c.stdin.Close(), c.PipeReader.Close())
}

// gatewayStart bounds how long a gateway may take until it serves.
const gatewayStart = 20 * time.Second

// awaitGateway returns once the gateway answers.
func awaitGateway(ctx context.Context, server *daemon, name string) error {
	ctx, cancel := context.WithTimeout(ctx, gatewayStart)
	defer cancel()
	for {
		_, err := askGateway(ctx, server, name, gateway.Request{Op: gateway.Wires})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fault.With(fmt.Errorf("the gateway does not answer: %w", err), fault.Hint{Action: fault.LookAtGateway, Name: name})
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// askGateway asks a gateway one thing, over a channel of its own.
func askGateway(ctx context.Context, server *daemon, name string, r gateway.Request) (gateway.Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := speakToGateway(ctx, server, name, nil)
	if err != nil {
		return gateway.Reply{}, err
	}
	defer c.Close()
	return c.Do(ctx, r)
}

// RenewGateway gives the gateway the program of this version of pixels, and starts that in place of the old one: the
// instance stays, and with it the wires, the rules and the policies.
func (p *Provisioner) RenewGateway(ctx context.Context) error {
	content, version, err := guestbin.Gateway()
	if err != nil {
		return err
	}
	return p.renewGateway(ctx, content, version)
}

func (p *Provisioner) renewGateway(ctx context.Context, content []byte, version string) error {
	name := p.config.Gateway()
	_, s, err := command(ctx, p.server, name, api.InstanceExecPost{Command: []string{gatewayProgram, gateway.RenewCommand, version}})
	if err != nil {
		return fmt.Errorf("renew the gateway: %w", err)
	}
	defer s.close()
	said := heard{most: saidMost}
	if err := s.carry(bytes.NewReader(content), io.Discard, &said); err != nil {
		return fmt.Errorf("renew the gateway: %w", err)
	}
	if text := said.String(); text != "" {
		return fmt.Errorf("renew the gateway: %s", text)
	}
	if err := awaitGateway(ctx, p.server, name); err != nil {
		return err
	}
	// A server that runs may give it wires meanwhile.
	err = edit(ctx, p.server, name, func(put *api.InstancePut) error {
		put.Config[gatewayKey] = version
		delete(put.Config, canaryKey) // that was with the old one
		return nil
	})
	if err != nil {
		return fmt.Errorf("note the gateway's version: %w", err)
	}
	return nil
}
