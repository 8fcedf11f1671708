package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pixels/egress"
	"pixels/internal/app"
	"pixels/internal/place"
	"pixels/policy/ledger"
	"pixels/sandbox"
	"pixels/sandbox/manager"
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

// glance has a look at the sandboxes that there are, by the service where there is one. It changes and records nothing. What can't be had in
// time is not there.
func (a *cli) glance(cmd *cobra.Command, of string) []manager.Glimpse {
	if a.load(cmd) != nil {
		return nil
	}
	served, err := a.served()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
	defer cancel()
	found := make(chan []manager.Glimpse, 1)
	go func() {
		var all []manager.Glimpse // without them there is nothing to offer
		if served != nil {
			all, _ = served.Glance(ctx, of)
		} else if b, err := app.OpenBackend(a.config); err == nil {
			all, _ = manager.Glance(ctx, b, a.owner, of)
		}
		found <- all
	}()
	select {
	case all := <-found:
		return all
	case <-ctx.Done():
		return nil
	}
}

func namesOf(all []manager.Glimpse) (names []string) {
	for _, g := range all {
		names = append(names, g.Name)
	}
	return names
}

func sourcesOf(all []manager.Glimpse) (sources []string) {
	for _, g := range all {
		for _, label := range g.Checkpoints {
			sources = append(sources, g.Name+":"+label)
		}
	}
	return sources
}

// someBox offers sandboxes.
func (a *cli) someBox(cmd *cobra.Command, _ []string) []string { return namesOf(a.glance(cmd, "")) }

// boxIn offers sandboxes in one of some states.
func (a *cli) boxIn(states ...sandbox.State) func(*cobra.Command, []string) []string {
	return func(cmd *cobra.Command, _ []string) []string {
		return namesOf(slices.DeleteFunc(a.glance(cmd, ""), func(g manager.Glimpse) bool { return !slices.Contains(states, g.State) }))
	}
}

// before is the sandbox that stands before what is typed.
func (a *cli) before(cmd *cobra.Command, words []string) (g manager.Glimpse) {
	for _, g := range a.glance(cmd, words[0]) {
		if g.Name == words[0] {
			return g
		}
	}
	return g
}

// checkpointsOf offers the labels of the sandbox that stands before.
func (a *cli) checkpointsOf(cmd *cobra.Command, before []string) []string {
	return a.before(cmd, before).Checkpoints
}

// someCheckpoint offers all checkpoints, as NAME:LABEL.
func (a *cli) someCheckpoint(cmd *cobra.Command, _ []string) []string {
	return sourcesOf(a.glance(cmd, "*"))
}

// someSource offers what a sandbox can be made of: checkpoints, and sandboxes as they are.
func (a *cli) someSource(cmd *cobra.Command, _ []string) []string {
	all := a.glance(cmd, "*")
	return append(sourcesOf(all), namesOf(all)...)
}

// someRequest offers requests that are open.
func (a *cli) someRequest(cmd *cobra.Command, _ []string) (ids []string) {
	path, err := place.Database()
	if err != nil || a.load(cmd) != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
	defer cancel()
	served, err := a.served()
	if err != nil {
		return nil
	}
	if served == nil {
		ids, _ = ledger.OpenRequests(ctx, path) // without them there is nothing to offer
		return ids
	}
	all, _ := served.Requests(ctx, false)
	for _, q := range all {
		ids = append(ids, q.ID)
	}
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
	return a.before(cmd, before).Domains
}

// nothing is offered where anything may stand.
func nothing(*cobra.Command, []string) []string { return nil }
