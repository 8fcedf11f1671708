package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"pixels/egress"
	"pixels/internal/program"
	"pixels/internal/view"
	"pixels/sandbox"
	"pixels/sandbox/manager"
)

func (a *cli) networkCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check NAME HOST[:PORT]",
		Short: "Say whether a sandbox may reach a host, and which rule decides",
		Long: "check says whether a connection may leave, by the rules of now: it makes none. The port is 443 unless it is given.\n" +
			"The exit code is 0 when it may, 4 when it may not.",
		Example: "  " + program.Name + " network check work api.example.com\n  " + program.Name + " network check work db.example.com:5432",
		Args:    exactly(2, "the name of a sandbox, and a host with its port"),
		RunE: func(cmd *cobra.Command, args []string) error {
			host, port, err := hostPort(args[1])
			if err != nil {
				return usageError{err}
			}
			return a.withHuman(func(m *manager.Human) error {
				e, err := m.Egress(cmd.Context(), m.As(a.owner), args[0])
				if err != nil {
					return err
				}
				text, allowed, err := check(e.Egress, host, port)
				if err != nil {
					return usageError{err}
				}
				if !e.Enforced {
					text += "; NOT ENFORCED: " + view.NotEnforced(e.Egress, view.Terminal)
				}
				fmt.Fprintln(a.out, text)
				if !allowed {
					return exitCode(exitDenied)
				}
				return nil
			})
		},
	}
}

func hostPort(text string) (host string, port uint16, err error) {
	host, number, err := net.SplitHostPort(text)
	if err != nil {
		return text, 443, nil
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("the port %q is no number from 1 to 65535", number)
	}
	return host, uint16(n), nil
}

// check says which rule decides about a connection.
func check(e sandbox.Egress, host string, port uint16) (text string, allowed bool, err error) {
	p := egress.Policy{Mode: e.Mode, Rules: e.Rules}
	where := egress.Ask(host, port)
	var by egress.Grant
	if addr, err := netip.ParseAddr(host); err == nil {
		by, allowed = p.AllowsAddress(addr, port)
	} else {
		name, err := egress.Name(host)
		if err != nil {
			return "", false, fmt.Errorf("%q is no host: %w", host, err)
		}
		by, allowed = p.Decides(name, port)
	}
	rule := by.From
	if by.Rule.String() != "" {
		rule = fmt.Sprintf("%s (%s)", by.Rule, by.From)
	}
	switch {
	case allowed && !by.Until.IsZero():
		return fmt.Sprintf("%s may be reached until %s: %s", where, view.Moment(by.Until), rule), true, nil
	case allowed:
		return fmt.Sprintf("%s may be reached: %s", where, rule), true, nil
	case by.Deny:
		return fmt.Sprintf("%s may not be reached: denied, %s", where, rule), false, nil
	}
	return fmt.Sprintf("%s may not be reached: no rule of the egress %s allows it", where, e.Mode), false, nil
}

// mayLift shows which denials the mode unrestricted lifts, and asks.
func (a *cli) mayLift(ctx context.Context, m *manager.Human, name string) error {
	e, err := m.Egress(ctx, m.As(a.owner), name)
	if err != nil {
		return err
	}
	lifted := e.Lifted()
	if len(lifted) == 0 {
		return nil
	}
	var words []string
	for _, d := range lifted {
		words = append(words, fmt.Sprintf("%s (%s)", d.Rule, d.From))
	}
	fmt.Fprintf(a.err, "unrestricted lifts what was denied: %s\n", strings.Join(words, ", "))
	if _, ok := terminal(a.in); !ok {
		return usageError{fmt.Errorf("give --yes to lift them; nothing was changed")}
	}
	yes, err := a.confirm("lift them")
	if err == nil && !yes {
		err = fmt.Errorf("nothing was changed")
	}
	return err
}
