package main

import (
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"time"

	"github.com/spf13/cobra"

	"pixels/internal/demo"
	"pixels/internal/server"
	"pixels/internal/setup"
)

func (a *cli) demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Set up what is missing, then do the main job for real and remove all of it",
		Long: "demo drives the MCP server as an agent would: it creates a sandbox, writes a program in it, checkpoints and restores\n" +
			"it, runs work in the background, clones it three times with work in each, has a connection held\n" +
			"until another process approves it, takes that back and cuts it, and destroys all. Interrupted, it\n" +
			"removes what it made; what a killed one left, the next one removes.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := setup.Run(cmd.Context(), a.setupOptions()); err != nil {
				return fmt.Errorf("setup: %w", err)
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out)
			d := demo.Demo{Out: a.out, Start: func(ctx context.Context) (*server.Client, error) {
				return server.Start(ctx, self, append([]string{"serve", "--direct", "--owner", demo.Owner}, a.given(cmd)...)...)
			}}
			d.Human = func(ctx context.Context, args ...string) *osexec.Cmd {
				c := osexec.CommandContext(ctx, self, append(append([]string{"--direct", "--owner", demo.Owner}, a.given(cmd)...), args...)...)
				c.Cancel = func() error { return c.Process.Signal(os.Interrupt) } // in good order
				c.WaitDelay = 20 * time.Second
				return c
			}
			if err := d.Run(cmd.Context()); err != nil {
				return fmt.Errorf("demo: %w", err)
			}
			return nil
		},
	}
}
