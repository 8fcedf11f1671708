package main

import (
	"github.com/spf13/cobra"

	"pixels/egress/gateway"
)

// gatewayCommand runs a gateway by hand, such as in a network namespace. Set-up has it run in an instance of its own.
func gatewayCommand() *cobra.Command {
	return &cobra.Command{
		Use: "gateway [" + gateway.ControlCommand + "]", Hidden: true,
		Short: "Be the gateway of this network namespace, or speak to the one that is",
		Long: "Be the gateway of this network namespace, configured by the variable " + gateway.Environment + " (JSON), or\n" +
			"join stdin and stdout to the control channel of the one that is. Set-up has a gateway run in an instance.",
		Args:              cobra.MaximumNArgs(1),
		PersistentPreRunE: func(*cobra.Command, []string) error { return nil }, // it needs no configuration of ours
		RunE: func(_ *cobra.Command, args []string) error {
			if code := gateway.Main(append([]string{"gateway"}, args...)); code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
}
