package incus

// stop is a moment in a restore or a copy at which tests have others act.
type stop string

// The stops of Restore, in their order, and those of Create.
const (
	restoreBegun    stop = "restore: begun"
	restoreFound    stop = "restore: the checkpoint is found"
	restoreRead     stop = "restore: the keys are read"
	restoreAlone    stop = "restore: no other one is under way"
	restoreWired    stop = "restore: the copy has a wire"
	restoreCopying  stop = "restore: Incus copies"
	restoreCopied   stop = "restore: the copy is made"
	restoreProven   stop = "restore: the keys are proven"
	restoreStarted  stop = "restore: the copy has started"
	restoreReady    stop = "restore: the copy is ready"
	restoreRetiring stop = "restore: the old instance is to go"
	restoreRetired  stop = "restore: the old instance went"

	createBegun   stop = "create: begun"
	createFree    stop = "create: the name is free"
	createRead    stop = "create: the source is read"
	createWired   stop = "create: it has a wire"
	createCopying stop = "create: Incus copies"
	createCopied  stop = "create: the copy is made"
	createProven  stop = "create: the source is proven"
	createStarted stop = "create: it has started"
	createWon     stop = "create: the name is its own"
	createReady   stop = "create: it is ready"
)

// at is called at each stop.
func (b *Backend) at(s stop) {
	if b.stopAt != nil {
		b.stopAt(s)
	}
}
