package aside_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// reasons returns the constants Reason… of a file, with their texts as they are written there.
func reasons(t *testing.T, file string) map[string]string {
	t.Helper()
	tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	require.NoError(t, err)
	texts := make(map[string]string)
	ast.Inspect(tree, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(spec.Names[0].Name, "Reason") {
			texts[spec.Names[0].Name] = spec.Values[0].(*ast.BasicLit).Value
		}
		return true
	})
	return texts
}

func TestEachReasonOfTheEngineHasAConstant(t *testing.T) {
	t.Parallel()
	own := reasons(t, "result.go")
	require.Greater(t, len(own), 15)
	require.Equal(t, own, reasons(t, filepath.Join("internal", "engine", "reasons.go")))

	// No other file of the engine gives a reason a text of its own.
	files, err := filepath.Glob(filepath.Join("internal", "engine", "*.go"))
	require.NoError(t, err)
	named := make(map[string]int)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		tree, err := parser.ParseFile(set, file, nil, 0)
		require.NoError(t, err)
		ast.Inspect(tree, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				named[n.Name]++
			case *ast.KeyValueExpr:
				if key, ok := n.Key.(*ast.Ident); ok && strings.EqualFold(key.Name, "reason") {
					require.NotContains(t, literals(n.Value), true, set.Position(n.Pos()))
				}
			case *ast.AssignStmt:
				for i, left := range n.Lhs {
					name := ""
					switch left := left.(type) {
					case *ast.SelectorExpr:
						name = left.Sel.Name
					case *ast.Ident:
						name = left.Name
					}
					if strings.EqualFold(name, "reason") && i < len(n.Rhs) {
						require.NotContains(t, literals(n.Rhs[i]), true, set.Position(n.Pos()))
					}
				}
			}
			return true
		})
	}
	for name := range own {
		require.Greater(t, named[name], 1, name+" is used")
	}
}

// literals has true if there is a text in an expression that says more than how two others are joined.
func literals(e ast.Expr) (found map[bool]bool) {
	found = make(map[bool]bool)
	ast.Inspect(e, func(n ast.Node) bool {
		if text, ok := n.(*ast.BasicLit); ok && text.Kind == token.STRING && text.Value != `": "` {
			found[true] = true
		}
		return true
	})
	return found
}
