// Command board generates asideprom's dashboard for Grafana. After a change of board.go, run in asideprom:
//
//	go generate .
//
// The program is a module of its own, so that nobody who imports asideprom depends on Grafana's packages.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
)

func main() {
	file := flag.String("o", "", "`file` to write (default: the standard output)")
	flag.Parse()
	if err := run(*file, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "board:", err)
		os.Exit(1)
	}
}

func run(file string, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q: everything is a flag", args[0])
	}
	text, err := generate()
	if err != nil {
		return err
	}
	if file == "" {
		_, err = os.Stdout.Write(text)
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// generate returns the dashboard as Grafana imports it.
func generate() ([]byte, error) {
	board, err := newBoard().Build()
	if err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(board, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(text, '\n'), nil
}
