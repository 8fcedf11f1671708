package gateway

import (
	"bufio"
	"errors"
	"io"
)

// What a line of the control channel may have at most, in bytes. Longer ones are skipped: they end no conversation.
const (
	maxRequestLine = 1 << 20
	maxReplyLine   = 16 << 20
)

// eachLine calls do with each line, but those that are longer than most, until do fails or there are no more. The line is
// good until do returns.
func eachLine(from io.Reader, most int, do func(line []byte) error) error {
	r := bufio.NewReader(from)
	var line []byte
	tooLong := false
	for {
		part, err := r.ReadSlice('\n')
		switch {
		case tooLong || len(line)+len(part) > most:
			tooLong, line = true, nil
		default:
			line = append(line, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if !tooLong && len(line) > 0 {
			if e := do(line); e != nil {
				return e
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		line, tooLong = line[:0], false
		if cap(line) > 64<<10 {
			line = nil
		}
	}
}
