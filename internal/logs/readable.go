package logs

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"unicode"
	"unicode/utf16"
)

// Readable returns a logger that writes to logger's handler and escapes control characters from U+007F on. A terminal or a log viewer would
// obey such characters and not show them. slog's handlers escape the older control characters. With JSON they let the others through.
// Readable writes them in the form \u0085. It escapes texts and errors. Other values decide themselves how they are written.
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
			if text := textOf(err); Escape(text) != text { // otherwise the handler gets the error itself
				a.Value = slog.StringValue(Escape(text))
			}
		}
	}
	return a
}

// textOf returns an error's text, or "" if the error's methods panic. The handler decides what it writes of such an error.
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

// Escape escapes the unreadable characters of a text as JSON does.
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

// unreadable reports whether a character is a control character, one that changes the order in which others are shown, or a newline of another kind.
func unreadable(r rune) bool { return r >= 0x7f && !unicode.IsGraphic(r) }
