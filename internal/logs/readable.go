package logs

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"unicode"
	"unicode/utf16"
)

// Readable returns a logger that writes by way of logger's handler, without characters that a terminal, or a viewer of logs, would follow and not
// show, from U+007F on: slog's handlers escape the older control characters and, with JSON, let the others through. They are written as
// \u0085. Texts and errors are looked at; other values say themselves how they are written.
func Readable(logger *slog.Logger) *slog.Logger {
	return slog.New(readable{logger.Handler()})
}

type readable struct{ slog.Handler }

func (h readable) Handle(ctx context.Context, r slog.Record) error {
	clean := slog.NewRecord(r.Time, r.Level, Escape(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(escaped(a))
		return true
	})
	return h.Handler.Handle(ctx, clean)
}

func (h readable) WithAttrs(attrs []slog.Attr) slog.Handler {
	return readable{h.Handler.WithAttrs(allEscaped(attrs))}
}

func (h readable) WithGroup(name string) slog.Handler { return readable{h.Handler.WithGroup(name)} }

func escaped(a slog.Attr) slog.Attr {
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(Escape(v.String()))
	case slog.KindGroup:
		a.Value = slog.GroupValue(allEscaped(v.Group())...)
	case slog.KindAny:
		if err, ok := v.Any().(error); ok {
			if text := textOf(err); Escape(text) != text { // else a handler may want the error itself
				a.Value = slog.StringValue(Escape(text))
			}
		}
	}
	return a
}

// textOf is an error's text, none where its methods panic: what is written of that is the handler's affair.
func textOf(err error) (text string) {
	defer func() { _ = recover() }()
	return err.Error()
}

func allEscaped(attrs []slog.Attr) []slog.Attr {
	list := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		list[i] = escaped(a)
	}
	return list
}

// Escape writes the characters of a text that are to be escaped as JSON does.
func Escape(text string) string {
	if !strings.ContainsFunc(text, unreadable) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if !unreadable(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

// unreadable reports whether a character is a control, or one that changes the order in which others are shown, or a newline of another kind.
func unreadable(r rune) bool { return r >= 0x7f && !unicode.IsGraphic(r) }
