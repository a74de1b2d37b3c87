//go:build !race

package architecture

import (
	"go/ast"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// inlined are the calls of a hit in memory that are none in the program: the compiler has to put the code of the function in their
// place. The first is the function of the root that calls, the second what it calls, as the compiler names it there.
var inlined = [][2]string{
	{"GetOrLoad", "aside.passive"},
	{"GetOrLoad", "stats.(*Striped).Add"},
	{"GetOrLoad", "aside.(*Cache).drawn"},
	{"GetOrLoad", "sampler.(*Sampler).Drawn"},
	{"Loader.Get", "aside.passive"},
	{"Loader.Get", "stats.(*Striped).Add"},
	{"Loader.Get", "aside.(*Cache).drawn"},
	{"Loader.Get", "sampler.(*Sampler).Drawn"},
	{"GetOrLoad", "aside.(*resolved).is"},
}

// TestAHitIsInlined reads the compiler's own report. It is not for the race detector's build, which would compile everything
// a second time for it.
func TestAHitIsInlined(t *testing.T) {
	t.Parallel()
	all, err := sources()
	require.NoError(t, err)
	type span struct {
		function    string
		first, last int
	}
	functions := map[string][]span{} // by the file of the root
	for _, s := range all {
		if s.pkg != "aside" || s.test {
			continue
		}
		for _, d := range s.tree.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				name := f.Name.Name
				if f.Recv != nil {
					name = receiver(f.Recv.List[0].Type) + "." + name
				}
				functions[s.name] = append(functions[s.name], span{name, s.files.Position(f.Pos()).Line, s.files.Position(f.End()).Line})
			}
		}
	}

	build := exec.Command("go", "build", "-gcflags=-m=1", ".", "./internal/architecture/testdata/hits")
	build.Dir = root
	report, err := build.CombinedOutput()
	require.NoError(t, err, "%s", report)

	found := map[[2]string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^(\S+?):(\d+):\d+: inlining call to (\S+)`).FindAllSubmatch(report, -1) {
		line, err := strconv.Atoi(string(m[2]))
		require.NoError(t, err)
		if filepath.Dir(string(m[1])) != "." {
			continue
		}
		for _, f := range functions[filepath.Base(string(m[1]))] {
			if f.first <= line && line <= f.last {
				found[[2]string{f.function, string(m[3])}] = true
			}
		}
	}
	for _, call := range inlined {
		if !found[call] {
			t.Errorf("%s calls %s: a hit must not, the compiler has to inline it", call[0], call[1])
		}
	}
	require.False(t, found[[2]string{"GetOrLoad", "aside.lookup"}], "the report says that everything is inlined")
	require.NotEmpty(t, found)
}

// receiver is the name of the type of a method.
func receiver(of ast.Expr) string {
	switch of := of.(type) {
	case *ast.StarExpr:
		return receiver(of.X)
	case *ast.IndexExpr:
		return receiver(of.X)
	case *ast.IndexListExpr:
		return receiver(of.X)
	case *ast.Ident:
		return of.Name
	}
	return ""
}
