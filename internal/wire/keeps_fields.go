package wire

import (
	"reflect"
	"slices"
	"strings"
)

// tagOf is what a format calls a field: CBOR takes the name for JSON where it has none of its own.
func tagOf(f reflect.StructField, format string) string {
	tag := f.Tag.Get(format)
	if tag == "" && format == "cbor" {
		tag = f.Tag.Get("json")
	}
	return tag
}

func (b *builder) fillStruct(p *part, addressable bool) *loss {
	p.kind = structPart
	if p.typ.PkgPath() == "sync" {
		return nil // whether a lock is held is no part of a value
	}
	found, l := b.findFields(p.typ)
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
		f.part = of
		p.fields = append(p.fields, f.partField)
	}
	return nil
}

type foundField struct {
	partField
	tagged bool
}

// findFields collects the fields of a struct as encoding/json does, which CBOR follows, and refuses what both leave out without a word:
// fields that others of the same name hide. CBOR refuses unexported fields too, unless a tag says that they are left out.
func (b *builder) findFields(t reflect.Type) ([]foundField, *loss) {
	type level struct {
		typ   reflect.Type
		index []int
		path  string
	}
	var all []foundField
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
			embedded := f.Anonymous && under.Kind() == reflect.Struct
			if !f.IsExported() && !embedded {
				if b.format == "cbor" && under.PkgPath() != "sync" {
					return nil, lose("is not exported: where it may be lost, give it the tag `cbor:\"-\"`").in(path)
				}
				continue
			}
			name, opts, _ := strings.Cut(tag, ",")
			index := append(slices.Clone(at.index), i)
			if embedded && name == "" {
				if !f.IsExported() && f.Type.Kind() == reflect.Pointer {
					return nil, lose("is an embedded pointer to an unexported type, which cannot be decoded").in(path)
				}
				if seen[under] {
					return nil, lose("is embedded more than once: one hides the other").in(path)
				}
				seen[under] = true
				if b.encodesItself(under) {
					return nil, lose("is embedded and has methods that encode it, which are not those of the struct: give it a name by a tag").in(path)
				}
				if under.PkgPath() != "sync" {
					todo = append(todo, level{under, index, path})
				}
				continue
			}
			if !f.IsExported() {
				continue // an unexported struct with a name of its own
			}
			tagged := name != ""
			if !tagged {
				name = f.Name
			}
			parsed := strings.Split(opts, ",")
			field := partField{name: name, path: path, index: index, omit: slices.Contains(parsed, "omitempty") || slices.Contains(parsed, "omitzero")}
			for _, opt := range []string{"string", "keyasint"} {
				if slices.Contains(parsed, opt) {
					field.other += opt
				}
			}
			all = append(all, foundField{field, tagged})
		}
	}
	best := make(map[string]foundField)
	for _, f := range all {
		other, ok := best[f.name]
		switch {
		case !ok:
			best[f.name] = f
		case len(f.index) == len(other.index) && f.tagged == other.tagged:
			return nil, lose("has the name of field %s: both would be left out", other.path).in(f.path)
		default:
			return nil, lose("and field %s have one name: one would be left out", other.path).in(f.path)
		}
	}
	return all, nil
}
