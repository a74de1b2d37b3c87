// Package bench measures aside beside what a user would pick instead, in one run, because only ratios of one run can be
// trusted. It is a module of its own, so that nobody who imports aside downloads the others.
package bench
