package wire

import (
	"errors"
	"fmt"
	"hash/fnv"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// A build reads what another one wrote, whose type had other fields. Beside a value there is a hash of each field of its type: of its name,
// of where it is, and of its kind. A value is read where the writer's fields are all known to the reader, or the reader's to the writer. Else
// a field may have got another name, place or kind, and a reader would have its zero value or another meaning: that is refused. Nothing
// of the value itself tells so much: fields that are left out where they are empty look like fields that are not there.

// errOtherFields says nothing of the value.
var errOtherFields = errors.New("stored by a build in which the type had other fields")

// errNothing is what a nil pointer is to a reader of what it would point to.
var errNothing = errors.New("null, and the type has no nil")

const (
	fieldHash = 3   // bytes of a hash that are stored
	mostKept  = 256 // fields of a type: those of a larger one are not listed, and other builds refuse it
)

// A fieldSet has the fields of a type, with those of the structs in it.
type fieldSet struct {
	stored []byte            // the hashes, in order; nil where there is but one, and where they are not told
	paths  map[uint32]string // as Go spells them, by their whole hashes; nil where they are not told
}

// fieldSet also makes the hash of all of it, which is the same for types whose values a format writes alike, whatever they and their
// fields are called in Go.
func (p *part) fieldSet(format string) (set fieldSet, print uint32) {
	for p.kind == pointerPart && !p.elem.nullable {
		p = p.elem // as what it points to is written
	}
	l := lister{paths: make(map[uint32]string)}
	l.list(p, "", "")
	if l.over || format == "json" && foldsAlike(p, make(map[*part]bool)) {
		return fieldSet{}, p.print()
	}
	var hashes []uint32
	for hash := range l.paths {
		hashes, print = append(hashes, hash), print+hash
	}
	if set = (fieldSet{paths: l.paths}); len(hashes) < 2 {
		return set, print // which says all
	}
	slices.SortFunc(hashes, func(a, b uint32) int { return int(a%(1<<24)) - int(b%(1<<24)) })
	for _, hash := range hashes {
		set.stored = append(set.stored, byte(hash>>16), byte(hash>>8), byte(hash))
	}
	return set, print
}

// A lister goes through the fields of a type.
type lister struct {
	paths map[uint32]string
	open  []*part
	over  bool
}

// list is told what comes before p: as it is written, and as Go spells it.
func (l *lister) list(p *part, written, path string) {
	if l.over {
		return
	}
	if at := slices.Index(l.open, p); at >= 0 {
		l.add(written+"@"+strconv.Itoa(at), path)
		return
	}
	l.open = append(l.open, p)
	defer func() { l.open = l.open[:len(l.open)-1] }()
	written += p.says()
	switch {
	case p.array:
		l.add(fmt.Sprintf("%s=%d", written, p.print()), path) // its fields have no names
		return
	case p.key != nil:
		written += fmt.Sprintf("[%d]", p.key.print())
	}
	if p.elem != nil {
		if p.kind != pointerPart {
			path += "[]"
		}
		l.list(p.elem, written+"*", path)
		return
	}
	if len(p.fields) == 0 {
		l.add(written, path)
	}
	for i := range p.fields {
		f := &p.fields[i]
		l.list(f.part, fmt.Sprintf("%s{%q%s", written, f.name, f.other), strings.TrimPrefix(path+"."+f.path, "."))
	}
}

func (l *lister) add(written, path string) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(written))
	sum := h.Sum32()
	if _, ok := l.paths[sum]; ok || len(l.paths) == mostKept {
		l.over = true
		return
	}
	l.paths[sum] = path
}

// says what kind of value is written, without what is in it.
func (p *part) says() string {
	s := strconv.Itoa(int(p.kind))
	switch p.kind {
	case plainPart:
		s += strconv.FormatBool(p.typ.Kind() == reflect.Bool) // an integer that does not fit another one is an error
	case floatPart:
		s += p.typ.Kind().String()
	case ownPart, ownTextPart:
		s += p.typ.String()
	case anyPart:
		s += strconv.Itoa(p.typ.NumMethod())
	case listPart:
		if p.typ.Kind() == reflect.Array {
			s += strconv.Itoa(p.typ.Len())
		}
	}
	return s
}

// print is a hash of all that is in p, in order.
func (p *part) print() uint32 {
	h := fnv.New32a()
	number := make(map[*part]int)
	var tell func(p *part)
	tell = func(p *part) {
		if n, ok := number[p]; ok {
			fmt.Fprintf(h, "@%d", n)
			return
		}
		number[p] = len(number)
		fmt.Fprint(h, p.says())
		if p.key != nil {
			fmt.Fprint(h, "[")
			tell(p.key)
		}
		if p.elem != nil {
			fmt.Fprint(h, "*")
			tell(p.elem)
		}
		for _, f := range p.fields {
			fmt.Fprintf(h, "{%q%v", f.name, f.other)
			tell(f.part)
			fmt.Fprint(h, "}")
		}
	}
	tell(p)
	return h.Sum32()
}

// foldsAlike reports whether a struct has two names that encoding/json takes for one where it knows but one of them.
func foldsAlike(p *part, seen map[*part]bool) bool {
	if p == nil || seen[p] {
		return false
	}
	seen[p] = true
	names := make(map[string]bool)
	for _, f := range p.fields {
		name := fold(f.name)
		if names[name] || foldsAlike(f.part, seen) {
			return true
		}
		names[name] = true
	}
	return foldsAlike(p.elem, seen) || foldsAlike(p.key, seen)
}

// reads decides on a payload of a type with this hash and these fields.
func (k *keeper) reads(print uint32, stored []byte) error {
	if print == k.print {
		return nil
	}
	if len(stored) == 0 {
		if _, ok := k.fields.paths[print]; ok {
			return nil // the writer had one field
		}
		return errOtherFields
	}
	if len(stored)%fieldHash != 0 || k.fields.paths == nil {
		return errOtherFields
	}
	count := make(map[uint32]int, len(stored)/fieldHash)
	for rest := stored; len(rest) > 0; rest = rest[fieldHash:] {
		count[uint32(rest[0])<<16|uint32(rest[1])<<8|uint32(rest[2])]++
	}
	known, sum := 0, uint32(0)
	var missing []string
	for hash, path := range k.fields.paths {
		if short := hash % (1 << 24); count[short] > 0 {
			count[short]--
			known, sum = known+1, sum+hash
		} else {
			missing = append(missing, path)
		}
	}
	switch {
	case len(missing) == 0:
		return nil // the writer had more
	case known == len(stored)/fieldHash && sum == print:
		return nil // the reader has
	}
	l := lose("is missing, or had another type, and there is one that the type lacks: it may have got another name")
	if path := slices.Min(missing); path != "" {
		l.in(path)
	}
	return fmt.Errorf("%w: %w", errOtherFields, l.error(k.root.typ))
}

// IsOf reports whether a payload is that of a type, or of one with the same fields, as far as codecs of this package know.
func IsOf(c Codec, payload []byte, typ reflect.Type) bool {
	switch c.(type) {
	case jsonCodec:
		print, ok := printOf(payload)
		return ok && print == keeperOf(typ, c.Name()).print
	case cborCodec:
		_, print, _, ok := cutCBOR(payload)
		return ok && print == keeperOf(typ, c.Name()).print
	}
	return false
}

// Covers reports whether a value of one type has all fields of another, as far as codecs of this package know.
func Covers(c Codec, of, other reflect.Type) bool {
	switch c.(type) {
	case jsonCodec, cborCodec:
	default:
		return true
	}
	a, b := keeperOf(of, c.Name()), keeperOf(other, c.Name())
	if a.print == b.print {
		return true
	}
	for field := range b.fields.paths {
		if _, ok := a.fields.paths[field]; !ok {
			return false
		}
	}
	return b.fields.paths != nil
}
