package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/gatewayz/aside/asideprom"
)

// findPrometheus finds the program. That there is none in PATH is no error.
func (cfg *config) findPrometheus() error {
	path, err := exec.LookPath("prometheus")
	if cfg.prometheus != "" {
		if path, err = exec.LookPath(cfg.prometheus); err != nil {
			return fmt.Errorf("-prometheus: %w", err)
		}
	}
	if cfg.prometheus = path; err != nil {
		cfg.prometheus = ""
	}
	return nil
}

// prometheusBase is the address of Prometheus' own pages, empty without the program.
func (cfg *config) prometheusBase() string {
	if cfg.prometheus == "" {
		return ""
	}
	return "http://" + cfg.prometheusAddr
}

// workDir returns the directory for the files, and a function that removes it if it is a temporary one.
func workDir(dir string) (path string, remove func() error, err error) {
	if dir == "" {
		dir, err = os.MkdirTemp("", "aside-observe-")
		return dir, func() error { return os.RemoveAll(dir) }, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, err
	}
	path, err = filepath.Abs(dir)
	return path, func() error { return nil }, err
}

// settings are those of Prometheus: it scrapes the server.
const settings = `# made by examples/observe
global:
  scrape_interval: 2s
  evaluation_interval: 15s
rule_files: [aside.rules.yml]
scrape_configs:
  - job_name: gateway
    static_configs:
      - targets: [%q]
`

func writeFiles(dir, target string) error {
	for name, text := range map[string][]byte{
		"prometheus.yml":       fmt.Appendf(nil, settings, target),
		"aside.rules.yml":      asideprom.Rules(),
		"aside.dashboard.json": asideprom.Dashboard(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

const none = `There is no program prometheus in PATH, so nothing scrapes the server. The package is named prometheus
in Debian, Alpine and Homebrew. On Debian, take the program alone out of it: installed, the package runs a
server of its own, on all addresses.

  apt-get download prometheus && dpkg-deb -x prometheus_*.deb prometheus
  go run ./examples/observe -prometheus prometheus/usr/bin/prometheus

In a clone, make tools does that, and puts it into .tools/prometheus. Its own pages need other files of the
package, and the graphs of this command do not. Or let a Prometheus of yours read
%s.

`

// runPrometheus runs Prometheus until the context ends. Without the program it says so, and waits for the end.
func runPrometheus(ctx context.Context, cfg config, dir string, stdout io.Writer) error {
	if cfg.prometheus == "" {
		fmt.Fprintf(stdout, none, filepath.Join(dir, "prometheus.yml"))
		<-ctx.Done()
		return nil
	}
	log, err := os.Create(filepath.Join(dir, "prometheus.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, cfg.prometheus, "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+cfg.prometheusAddr)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { // ask first, so that it stores what it has
		if err := cmd.Process.Signal(os.Interrupt); err == nil || errors.Is(err, os.ErrProcessDone) {
			return err
		}
		return cmd.Process.Kill()
	}
	cmd.WaitDelay = 10 * time.Second // and then it is killed
	defer endsWithUs(cmd)()
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	base := cfg.prometheusBase()
	for {
		select {
		case err := <-ended:
			return endOf(ctx, err, log.Name())
		case <-time.After(50 * time.Millisecond):
		}
		if ready(ctx, base) {
			break
		}
	}
	fmt.Fprintf(stdout, "Prometheus is at %s, and has the alerts. The graphs fill up within a minute.\n\n", base)
	return endOf(ctx, <-ended, log.Name())
}

// endOf is an error if Prometheus has ended before the context, with the last line of its log.
func endOf(ctx context.Context, err error, log string) error {
	if ctx.Err() != nil {
		return nil
	}
	text, _ := os.ReadFile(log) // best effort: that it has ended is in the error anyway
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return fmt.Errorf("prometheus has ended: %v: %s", err, lines[len(lines)-1])
}

func ready(ctx context.Context, base string) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/-/ready", nil)
	if err != nil {
		return false
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}
