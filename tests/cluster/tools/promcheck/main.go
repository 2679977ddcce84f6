// Promcheck says what Prometheus's own code finds wrong with a configuration and with files of rules:
// promcheck [--config prometheus.yml] [rules.yml ...]. It is promtool's check without the clouds' service discoveries,
// which take minutes and gigabytes to build.
package main

import (
	"flag"
	"fmt"
	"log/slog"
	"os"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	_ "github.com/prometheus/prometheus/discovery/dns"
	_ "github.com/prometheus/prometheus/discovery/kubernetes"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

func main() {
	configuration := flag.String("config", "", "a prometheus.yml")
	flag.Parse()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	failed := false
	if *configuration != "" {
		if _, err := config.LoadFile(*configuration, false, log); err != nil {
			fmt.Fprintln(os.Stderr, err)
			failed = true
		}
	}
	for _, file := range flag.Args() {
		promql := parser.NewParser(parser.Options{})
		_, errs := rulefmt.ParseFile(file, false, model.UTF8Validation, promql, log)
		for _, err := range errs {
			fmt.Fprintln(os.Stderr, err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}
