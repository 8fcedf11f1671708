package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pixels/egress"
	"pixels/incus"
	"pixels/internal/place"
	"pixels/policy/ledger"
	"pixels/sandbox"
)

// completeWithin bounds how long a completion may take: what isn't found by then is not offered.
const completeWithin = 800 * time.Millisecond

// complete sets what is offered for a command's arguments: places[i] for the i-th one, and the last one for all that follow where
// more is set.
func complete(cmd *cobra.Command, more bool, places ...func(cmd *cobra.Command, before []string) []string) *cobra.Command {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		i := len(args)
		if more {
			i = min(i, len(places)-1)
		}
		if i >= len(places) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var taken []string
		if more {
			taken = args
		}
		return fitting(places[i](cmd, args), typed, taken), cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// fitting are the words that begin as what was typed, but for those that stand there already.
func fitting(words []string, typed string, taken []string) (fit []string) {
	for _, word := range words {
		if strings.HasPrefix(word, typed) && !slices.Contains(taken, word) {
			fit = append(fit, word)
		}
	}
	return fit
}

// completeFlag sets what is offered for a flag.
func completeFlag(cmd *cobra.Command, flag string, place func(cmd *cobra.Command, before []string) []string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		return fitting(place(cmd, args), typed, nil), cobra.ShellCompDirectiveNoFileComp
	})
}

// quick has a look at the backend, which changes and records nothing. Where that can't be had in time there is nothing.
func (a *cli) quick(cmd *cobra.Command, look func(ctx context.Context, b *incus.Backend) []string) []string {
	if a.load(cmd) != nil || a.notBesideService() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
	defer cancel()
	found := make(chan []string, 1)
	go func() {
		b, err := incus.OpenBackend(a.config.IncusConfig())
		if err == nil {
			found <- look(ctx, b)
		}
	}()
	select {
	case words := <-found:
		return words
	case <-ctx.Done():
		return nil
	}
}

func (a *cli) boxes(cmd *cobra.Command, is func(sandbox.Sandbox) bool) []string {
	return a.quick(cmd, func(ctx context.Context, b *incus.Backend) (names []string) {
		all, _ := b.List(ctx, a.owner) // without them there is nothing to offer
		for _, s := range all {
			if is(s) {
				names = append(names, s.Name)
			}
		}
		return names
	})
}

// someBox offers sandboxes.
func (a *cli) someBox(cmd *cobra.Command, _ []string) []string {
	return a.boxes(cmd, func(sandbox.Sandbox) bool { return true })
}

// boxIn offers sandboxes in one of some states.
func (a *cli) boxIn(states ...sandbox.State) func(*cobra.Command, []string) []string {
	return func(cmd *cobra.Command, _ []string) []string {
		return a.boxes(cmd, func(s sandbox.Sandbox) bool { return slices.Contains(states, s.State) })
	}
}

// checkpointsOf offers the labels of the sandbox that stands before.
func (a *cli) checkpointsOf(cmd *cobra.Command, before []string) []string {
	return a.quick(cmd, func(ctx context.Context, b *incus.Backend) (labels []string) {
		s, err := b.Get(ctx, a.owner, before[0])
		if err != nil {
			return nil
		}
		all, _ := b.Checkpoints(ctx, s.ID)
		for _, c := range all {
			labels = append(labels, c.Label)
		}
		return labels
	})
}

// someCheckpoint offers all checkpoints, as NAME:LABEL.
func (a *cli) someCheckpoint(cmd *cobra.Command, _ []string) []string {
	return a.quick(cmd, func(ctx context.Context, b *incus.Backend) (sources []string) {
		all, _ := b.List(ctx, a.owner)
		for _, s := range all {
			have, _ := b.Checkpoints(ctx, s.ID)
			for _, c := range have {
				sources = append(sources, s.Name+":"+c.Label)
			}
		}
		return sources
	})
}

// someSource offers what a sandbox can be made of: checkpoints, and sandboxes as they are.
func (a *cli) someSource(cmd *cobra.Command, before []string) []string {
	return append(a.someCheckpoint(cmd, before), a.someBox(cmd, before)...)
}

// someRequest offers requests that are open.
func (a *cli) someRequest(cmd *cobra.Command, _ []string) []string {
	path, err := place.Database()
	if err != nil || a.notBesideService() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
	defer cancel()
	ids, _ := ledger.OpenRequests(ctx, path) // without them there is nothing to offer
	return ids
}

// someMode offers the modes of egress.
func (a *cli) someMode(*cobra.Command, []string) (modes []string) {
	for _, m := range egress.Modes {
		modes = append(modes, string(m))
	}
	return modes
}

// someDomain offers what the sandbox that stands before was allowed.
func (a *cli) someDomain(cmd *cobra.Command, before []string) []string {
	return a.quick(cmd, func(ctx context.Context, b *incus.Backend) (domains []string) {
		s, err := b.Get(ctx, a.owner, before[0])
		if err != nil {
			return nil
		}
		for _, g := range egress.Lasting(s.Rules) {
			if !g.Deny {
				domains = append(domains, g.Rule.String())
			}
		}
		return domains
	})
}

// nothing is offered where anything may stand.
func nothing(*cobra.Command, []string) []string { return nil }
