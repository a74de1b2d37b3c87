package redistest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// errNotRESP says that what was read is no RESP2 or RESP3, or a streamed value.
var errNotRESP = errors.New("not RESP")

// maxBulk is the longest string that a server takes (proto-max-bulk-len): a longer one is no RESP but garbage.
const maxBulk = 512 << 20

// frame is one whole RESP value, with the attributes before it and the values in it, as the bytes that it came in.
type frame struct {
	raw    []byte
	kind   byte     // its first byte, after any attributes: '$', '*', '>', …; 0 for the start of a frame cut short
	leaves [][2]int // where the texts of the scalars in it begin and end in raw; no nulls, no attributes
}

// field returns the i-th scalar, "" where there are fewer.
func (f frame) field(i int) string {
	if i >= len(f.leaves) {
		return ""
	}
	return string(f.raw[f.leaves[i][0]:f.leaves[i][1]])
}

// fields returns all scalars: aggregates in it are flattened, nulls left out.
func (f frame) fields() []string {
	fields := make([]string, len(f.leaves))
	for i := range fields {
		fields[i] = f.field(i)
	}
	return fields
}

// args returns the arguments of a request.
func (f frame) args() []string {
	if f.kind == '*' {
		return f.fields()
	}
	return strings.Fields(string(f.raw)) // an inline command
}

// readFrame reads one value. With an error it returns what it has read of it; the error is io.EOF where that is
// nothing.
func readFrame(r *bufio.Reader) (frame, error) {
	p := parser{r: r}
	return p.result(p.value(0, true))
}

// readRequest reads one command: an array, or the inline form, a line of words.
func readRequest(r *bufio.Reader) (frame, error) {
	p := parser{r: r}
	first, err := r.Peek(1)
	if err == nil && first[0] == '*' {
		return p.result(p.value(0, true))
	}
	if err == nil {
		p.f.kind = ' '
		err = p.line()
	}
	return p.result(err)
}

type parser struct {
	r *bufio.Reader
	f frame
}

func (p *parser) result(err error) (frame, error) {
	if err != nil {
		p.f.kind, p.f.leaves = 0, nil
		if errors.Is(err, io.EOF) && len(p.f.raw) > 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	return p.f, err
}

// value reads one value: https://redis.io/docs/latest/develop/reference/protocol-spec/. keep says whether its scalars
// belong to the leaves.
func (p *parser) value(depth int, keep bool) error {
	start := len(p.f.raw)
	if err := p.line(); err != nil {
		return err
	}
	line := bytes.TrimRight(p.f.raw[start:], "\r\n")
	if len(line) == 0 {
		return fmt.Errorf("%w: an empty line", errNotRESP)
	}
	kind := line[0]
	if depth == 0 {
		p.f.kind = kind
	}
	switch kind {
	case '_':
		return nil
	case '+', '-', ':', ',', '#', '(':
		if keep {
			p.f.leaves = append(p.f.leaves, [2]int{start + 1, start + len(line)})
		}
		return nil
	}
	n, err := strconv.Atoi(string(line[1:]))
	if err != nil || n < -1 || !strings.ContainsRune("$=!*~>%|", rune(kind)) {
		return fmt.Errorf("%w: %.40q", errNotRESP, line)
	}
	switch kind {
	case '$', '=', '!':
		return p.bulk(n, keep)
	case '*', '~', '>':
		return p.values(n, depth+1, keep)
	case '%':
		return p.values(2*n, depth+1, keep)
	}
	// An attribute says something about the value behind it.
	if err := p.values(2*n, depth+1, false); err != nil {
		return err
	}
	return p.value(depth, keep)
}

func (p *parser) values(n, depth int, keep bool) error {
	for range n { // none for a null, -1
		if err := p.value(depth, keep); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) line() error {
	for {
		part, err := p.r.ReadSlice('\n')
		p.f.raw = append(p.f.raw, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// bulk reads the n bytes of a string, or nothing for a null, -1.
func (p *parser) bulk(n int, keep bool) error {
	if n < 0 {
		return nil
	}
	if n > maxBulk {
		return fmt.Errorf("%w: a string of %d bytes", errNotRESP, n)
	}
	start := len(p.f.raw)
	p.f.raw = slices.Grow(p.f.raw, n+2)
	read, err := io.ReadFull(p.r, p.f.raw[start:start+n+2])
	p.f.raw = p.f.raw[:start+read]
	if err != nil {
		return err
	}
	if !bytes.HasSuffix(p.f.raw, []byte("\r\n")) {
		return fmt.Errorf("%w: a string longer than it says", errNotRESP)
	}
	if keep {
		p.f.leaves = append(p.f.leaves, [2]int{start, start + n})
	}
	return nil
}
