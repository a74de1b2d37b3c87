package wire

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
)

// zeroAsker is the interface that omitzero uses.
var zeroAsker = reflect.TypeFor[interface{ IsZero() bool }]()

// tagOf returns the tag of a field for a format. CBOR uses the tag for JSON if there is none for CBOR.
func tagOf(f reflect.StructField, format string) string {
	tag := f.Tag.Get(format)
	if tag == "" && format == "cbor" {
		tag = f.Tag.Get("json")
	}
	return tag
}

func (b *builder) fillStruct(p *part, addressable bool) *loss {
	p.kind = structPart
	if locks[p.typ] {
		return nil // the state of a lock is not part of a value
	}
	p.array = b.format == "cbor" && isArray(p.typ)
	found, embeds, l := b.findFields(p.typ)
	if l != nil {
		return l
	}
	if len(found) == 0 && p.typ.NumField() > 0 {
		p.kind, p.look = hiddenPart, true
		return nil
	}
	for _, f := range found {
		under := p.typ
		through := addressable
		for _, i := range f.index[:len(f.index)-1] {
			if under = under.Field(i).Type; under.Kind() == reflect.Pointer {
				under, through = under.Elem(), true
			}
		}
		of, l := b.part(under.Field(f.index[len(f.index)-1]).Type, through)
		if l != nil {
			return l.in(f.path)
		}
		if b.format == "json" && strings.Contains(f.other, "string") && of.isQuotedText() {
			return lose("has the option string, with which encoding/json does not decode what a type's own MarshalText has written").in(f.path)
		}
		f.part = of
		if p.array {
			f.empty, f.zero, f.asks, f.least = false, false, false, 1
		}
		if !f.at.IsExported() && (of.kind != structPart || f.at.Type.Kind() == reflect.Pointer) {
			return lose("is embedded, of an unexported type and has a name by a tag: use a field of its own").in(f.path)
		}
		p.fields = append(p.fields, f.partField)
	}
	for _, e := range embeds {
		if p.array && e.pointer {
			return lose("is an embedded pointer in a struct that is written as a list").in(e.path)
		}
		if !e.comesBack(p, b.format) {
			p.embeds, p.look = append(p.embeds, e), true
		}
	}
	return nil
}

// isQuotedText reports whether the option string applies to a type, and the type has a text form of its own. The option applies to
// numbers, strings, truth values, and pointers to these.
func (p *part) isQuotedText() bool {
	if p.kind == pointerPart {
		p = p.elem
	}
	switch k := p.typ.Kind(); {
	case p.kind != ownTextPart:
		return false
	default:
		return k == reflect.String || reflect.Bool <= k && k <= reflect.Float64
	}
}

// locks are the types whose values need not come back: a new lock does as well.
var locks = map[reflect.Type]bool{
	reflect.TypeFor[sync.Mutex](): true, reflect.TypeFor[sync.RWMutex](): true, reflect.TypeFor[sync.Once](): true, reflect.TypeFor[sync.WaitGroup](): true,
}

// isArray reports whether CBOR writes a struct as a list.
func isArray(t reflect.Type) bool {
	f, ok := t.FieldByName("_")
	return ok && slices.Contains(strings.Split(f.Tag.Get("cbor"), ","), "toarray")
}

// isName reports whether encoding/json accepts a name in a tag.
func isName(s string) bool {
	for _, c := range s {
		if !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", c) && !unicode.IsLetter(c) && !unicode.IsDigit(c) {
			return false
		}
	}
	return s != ""
}

// An embedded struct has no place of its own in the encoding. Only its fields show that an embedded pointer is not nil.
type embedded struct {
	index   []int
	path    string
	pointer bool
	typ     reflect.Type
}

// comesBack reports whether the embedded struct comes back whatever its value.
func (e *embedded) comesBack(p *part, format string) bool {
	fields := 0
	for i := range p.fields {
		f := &p.fields[i]
		if !e.holds(f) {
			continue
		}
		fields++
		under, direct := e.typ, true
		for _, i := range f.index[len(e.index) : len(f.index)-1] {
			if under = under.Field(i).Type; under.Kind() == reflect.Pointer {
				direct = false // this pointer may be nil
				break
			}
		}
		if direct && !f.empty && !f.zero {
			return true
		}
	}
	return !e.pointer && (fields > 0 || !hasHidden(e.typ, format))
}

// hasHidden reports whether a struct has a field that is not left out by a tag.
func hasHidden(t reflect.Type, format string) bool {
	for i := range t.NumField() {
		if f := t.Field(i); f.Name != "_" && tagOf(f, format) != "-" && !locks[f.Type] {
			return true
		}
	}
	return false
}

func (e *embedded) holds(f *partField) bool {
	return len(f.index) > len(e.index) && slices.Equal(f.index[:len(e.index)], e.index)
}

type foundField struct {
	partField
	tagged bool
	at     reflect.StructField
}

// findFields collects the fields of a struct by the rules of encoding/json, which CBOR follows. Both formats silently leave out fields
// that are hidden by others of the same name. findFields refuses these. For CBOR it also refuses unexported fields, unless a tag
// leaves them out.
func (b *builder) findFields(t reflect.Type) ([]foundField, []embedded, *loss) {
	type level struct {
		typ   reflect.Type
		index []int
		path  string
	}
	var all []foundField
	var embeds []embedded
	seen := map[reflect.Type]bool{t: true}
	for todo := []level{{typ: t}}; len(todo) > 0; {
		at := todo[0]
		todo = todo[1:]
		for i := range at.typ.NumField() {
			f := at.typ.Field(i)
			tag := tagOf(f, b.format)
			if tag == "-" || f.Name == "_" {
				continue
			}
			path := strings.TrimPrefix(at.path+"."+f.Name, ".")
			under := f.Type
			if under.Kind() == reflect.Pointer {
				under = under.Elem()
			}
			inline := f.Anonymous && under.Kind() == reflect.Struct
			if !f.IsExported() && !inline {
				if b.format == "cbor" && !locks[under] {
					return nil, nil, lose("is not exported: where it may be lost, give it the tag `cbor:\"-\"`").in(path)
				}
				continue
			}
			name, opts, _ := strings.Cut(tag, ",")
			if b.format == "json" && !isName(name) {
				name = ""
			}
			index := append(slices.Clone(at.index), i)
			if inline && name == "" {
				if !f.IsExported() && f.Type.Kind() == reflect.Pointer {
					return nil, nil, lose("is an embedded pointer to an unexported type, which cannot be decoded").in(path)
				}
				if seen[under] {
					return nil, nil, lose("is embedded more than once: one hides the other").in(path)
				}
				seen[under] = true
				if b.encodesItself(under) {
					return nil, nil, lose("is embedded and has methods that encode it, which are not those of the struct: give it a name by a tag").in(path)
				}
				if !locks[under] {
					todo = append(todo, level{under, index, path})
					if f.IsExported() { // in an unexported struct, the rest is left out like unexported fields
						embeds = append(embeds, embedded{index, path, f.Type.Kind() == reflect.Pointer, under})
					}
				}
				continue
			}
			tagged := name != ""
			if !tagged {
				name = f.Name
			}
			parsed := strings.Split(opts, ",")
			field := partField{name: name, path: path, index: index, empty: slices.Contains(parsed, "omitempty"), zero: slices.Contains(parsed, "omitzero")}
			field.asks = field.zero && (f.Type.Implements(zeroAsker) || reflect.PointerTo(f.Type).Implements(zeroAsker))
			for _, opt := range []string{"string", "keyasint"} {
				if slices.Contains(parsed, opt) {
					field.other += opt
				}
			}
			switch n, err := strconv.Atoi(name); {
			case b.format == "json":
				field.least = len(`"":0`) + len(name)
			case !slices.Contains(parsed, "keyasint"):
				field.least = 2 + len(name)
			case err != nil:
				return nil, nil, lose("has a name that is no number").in(path)
			default:
				field.name, field.least = strconv.Itoa(n), 2
			}
			all = append(all, foundField{field, tagged, f})
		}
	}
	best := make(map[string]foundField)
	for _, f := range all {
		other, ok := best[f.name]
		switch {
		case !ok:
			best[f.name] = f
		case len(f.index) == len(other.index) && f.tagged == other.tagged:
			return nil, nil, lose("has the name of field %s: both would be left out", other.path).in(f.path)
		default:
			return nil, nil, lose("and field %s have one name: one would be left out", other.path).in(f.path)
		}
	}
	return all, embeds, nil
}
