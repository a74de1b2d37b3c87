// Package browser tests the page of asidehttp.Dashboard in Chromium. It is tests alone, in a module of its own, so that no program that imports the
// library gets what they need.
package browser
