package streams

import "sync"

// input keeps what came for a command until that takes it, up to a window.
type input struct {
	taken func(int) // hears how much was read

	mu    sync.Mutex
	more  *sync.Cond
	kept  []byte
	ended error // after what is kept
}

func newInput(taken func(int)) *input {
	i := &input{taken: taken}
	i.more = sync.NewCond(&i.mu)
	return i
}

// put adds to it, or answers false where more came than there is room for.
func (i *input) put(b []byte) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.kept)+len(b) > window {
		return false
	}
	i.kept = append(i.kept, b...)
	i.more.Broadcast()
	return true
}

// close ends it once; later calls do nothing.
func (i *input) close(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ended == nil {
		i.ended = err
	}
	i.more.Broadcast()
}

func (i *input) Read(b []byte) (int, error) {
	i.mu.Lock()
	for len(i.kept) == 0 && i.ended == nil {
		i.more.Wait()
	}
	n := copy(b, i.kept)
	i.kept = i.kept[n:]
	if len(i.kept) == 0 {
		i.kept = nil
	}
	err := i.ended
	i.mu.Unlock()
	if n == 0 && len(b) > 0 {
		return 0, err
	}
	i.taken(n)
	return n, nil
}
