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

// A build may read a value of another build, whose type had other fields. A hash of each field of the type is stored beside the value. It
// covers the name, the place and the kind of the field. A reader accepts a value if it knows all fields of the writer, or if the writer
// knew all fields of the reader. Otherwise a field may have changed its name, place or kind. The reader would then see a zero value, or
// another meaning, so it refuses the value. The value itself cannot show that: a field that was left out because it was empty looks
// like a field that does not exist.

// errOtherFields contains no part of the value.
var errOtherFields = errors.New("stored by a build in which the type had other fields")

// errNothing is the error for null in place of a value that cannot be nil. A writer stores null for a nil pointer.
var errNothing = errors.New("null, and the type has no nil")

const (
	fieldHash = 3   // bytes of a hash that are stored
	mostKept  = 256 // fields of a type; the fields of a larger type are not listed, and other builds refuse its values
)

// A fieldSet lists the fields of a type, and of the structs in it.
type fieldSet struct {
	stored []byte            // the hashes, in order; nil if there is only one, and if they are not listed
	paths  map[uint32]string // the paths in Go, by their whole hashes; nil if they are not listed
}

// fieldSet lists the fields of p, and makes a hash of all of them. The hash is equal for types whose values the format writes alike. The
// Go names of the types and of their fields do not matter.
func (p *part) fieldSet(format string) (set fieldSet, print uint32) {
	for p.kind == pointerPart && !p.elem.nullable {
		p = p.elem // the format writes only the element
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
		return set, print // the hash of all is enough
	}
	slices.SortFunc(hashes, func(a, b uint32) int { return int(a%(1<<24)) - int(b%(1<<24)) })
	for _, hash := range hashes {
		set.stored = append(set.stored, byte(hash>>16), byte(hash>>8), byte(hash))
	}
	return set, print
}

// A lister collects the fields of a type.
type lister struct {
	paths map[uint32]string
	open  []*part
	over  bool
}

// list adds the fields of p. written is the place of p in the format, and path its path in Go.
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
	written += p.form()
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

// form describes the kind of p, without its fields and elements.
func (p *part) form() string {
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

// print returns a hash of p and of all parts in it, in order.
func (p *part) print() uint32 {
	h := fnv.New32a()
	number := make(map[*part]int)
	var write func(p *part)
	write = func(p *part) {
		if n, ok := number[p]; ok {
			fmt.Fprintf(h, "@%d", n)
			return
		}
		number[p] = len(number)
		fmt.Fprint(h, p.form())
		if p.key != nil {
			fmt.Fprint(h, "[")
			write(p.key)
		}
		if p.elem != nil {
			fmt.Fprint(h, "*")
			write(p.elem)
		}
		for _, f := range p.fields {
			fmt.Fprintf(h, "{%q%v", f.name, f.other)
			write(f.part)
			fmt.Fprint(h, "}")
		}
	}
	write(p)
	return h.Sum32()
}

// foldsAlike reports whether a struct has two names that encoding/json takes for the same name. A reader that knows only one of them would
// take the other for it.
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

// reads reports whether k's type reads a payload of a type with this hash and these fields.
func (k *keeper) reads(print uint32, stored []byte) error {
	if print == k.print {
		return nil
	}
	if len(stored) == 0 {
		if _, ok := k.fields.paths[print]; ok {
			return nil // the writer's type had one field
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
		return nil // the writer's type has all fields of the reader's
	case known == len(stored)/fieldHash && sum == print:
		return nil // the reader's type has all fields of the writer's
	}
	l := lose("is missing, or had another type, and there is one that the type lacks: it may have got another name")
	if path := slices.Min(missing); path != "" {
		l.in(path)
	}
	return fmt.Errorf("%w: %w", errOtherFields, l.error(k.root.typ))
}

// IsOf reports whether a payload was written for a type, or for a type with the same fields. Only codecs of this package can tell.
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

// Covers reports whether a value of one type has all fields of another type. Only codecs of this package can tell.
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
