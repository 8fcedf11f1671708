package sandbox

import (
	"fmt"
	"strings"
	"sync"
)

// keep is how many bytes of each end of an output are kept: both ends of both streams come to about 10k tokens.
const keep = 10_000

// headTail is a writer that keeps the beginning and the end of what is written, and counts what it cut between.
type headTail struct {
	mu   sync.Mutex
	head []byte
	tail []byte
	cut  int64
}

func (h *headTail) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(b)
	room := min(keep-len(h.head), len(b))
	h.head = append(h.head, b[:room]...)
	h.tail = append(h.tail, b[room:]...)
	if extra := len(h.tail) - keep; extra > 0 {
		h.cut += int64(extra)
		h.tail = append(h.tail[:0], h.tail[extra:]...)
	}
	return n, nil
}

// text returns what was kept as valid UTF-8, and whether something was cut. Other bytes, also those of a character cut in
// two, become U+FFFD.
func (h *headTail) text() (text string, cut bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cut == 0 {
		return strings.ToValidUTF8(string(h.head)+string(h.tail), "\uFFFD"), false
	}
	return strings.ToValidUTF8(string(h.head), "\uFFFD") +
		fmt.Sprintf("\n[... %d bytes cut here; write long output to a file and read the part you need ...]\n", h.cut) +
		strings.ToValidUTF8(string(h.tail), "\uFFFD"), true
}
