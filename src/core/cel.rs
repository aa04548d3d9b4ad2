//! CEL expressions over labels, behind a guard.
//!
//! The evaluator recurses over its syntax tree, has no cost limit, and a deep tree ends the
//! process. So nothing reaches it that was not counted first: bytes before parsing, then depth,
//! nodes, additions and patterns on a walk with a stack of its own. What can loop
//! (comprehensions), what labels cannot be (structs) and functions that are not known to be
//! harmless are refused by name. Patterns are compiled once, here, under a size limit, as the
//! evaluator would compile them anew for every resource.
//!
//! On the same walk names become ours (`os` becomes `@os`), so that no label can be mistaken for
//! one of CEL's types or functions, nor the other way about.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::common::traits::{Container, Indexer};
use cel::common::types::{CelBool, CelDouble, CelInt, CelString, MAP_TYPE, STRING_TYPE, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::context::VariableResolver;
use cel::parser::{ParseErrors, PrattParser};
use cel::{Context, Env, ExecutionError, Value as CelValue};

use super::inventory::Resource;
use super::limits::{
    CEL_ADDITIONS_MAX, CEL_BYTES_MAX, CEL_DEPTH_MAX, CEL_NODES_MAX, CEL_PATTERN_BYTES_MAX, CEL_PATTERNS_MAX,
};
use super::types::Value;

/// An expression that is safe to evaluate, any number of times.
#[derive(Debug)]
pub struct Program {
    expression: IdedExpr,
    variables: BTreeSet<Arc<str>>,
    patterns: Vec<Pattern>,
    /// Whether it may tell apart resources that have the same values for its variables: it names
    /// them, or computes which label it asks for.
    particular: bool,
}

/// What a program sees of a resource. An `Int` is not the `Float` that it equals.
type Sight = Vec<Option<(bool, Value)>>;

/// Answers of one program by what it saw: many resources are alike, and an evaluation takes a
/// thousand times as long as finding the last one's answer.
#[derive(Debug, Default)]
pub struct Answers(BTreeMap<Sight, bool>);

impl Program {
    /// Parses and guards an expression. The error says what was expected and where, or which
    /// bound it is beyond, without the expression itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > CEL_BYTES_MAX {
            return Err(format!("expected an expression of at most {CEL_BYTES_MAX} bytes, found {}", text.len()));
        }
        // The parser is other people's code and the text anybody's: a bug in the one must not let
        // the other end the broker.
        let parsed = catch_unwind(|| PrattParser::new().max_recursion_depth(PARSER_DEPTH_MAX).parse(text));
        let mut expression = match parsed {
            Ok(Ok(expression)) => expression,
            Ok(Err(errors)) => return Err(explain(&errors)),
            Err(_) => return Err("the expression cannot be parsed; write it more simply".to_owned()),
        };
        let mut guard = Guard::default();
        guard.walk(&mut expression)?;
        let Guard { variables, patterns, particular, .. } = guard;
        Ok(Self { expression, variables, patterns, particular })
    }

    /// The labels it names, as variables, as `labels.x`, or as constant `labels['x-y']`; not
    /// `name` and `pool`, which every resource has. In order.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|name| &**name)
    }

    /// Whether it is true of the resource. One on which it cannot be evaluated, as a label is
    /// missing or of another type, does not match.
    #[must_use]
    pub fn holds(&self, resource: &Resource) -> bool {
        let scope = Scope { resource, patterns: &self.patterns };
        let evaluate = || {
            let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
            context.set_variable_resolver(&scope);
            CelValue::resolve_val(&self.expression, &context)
                .is_ok_and(|value| value.downcast_ref::<CelBool>().is_some_and(|truth| *truth.inner()))
        };
        // As in `parse`; a stored claim would otherwise end every broker that reads it again.
        catch_unwind(AssertUnwindSafe(evaluate)).unwrap_or(false)
    }
}

impl Answers {
    /// [`Program::holds`] for resources of one pool, evaluated once for those that it cannot tell
    /// apart. Always of the same program.
    pub fn holds(&mut self, program: &Program, resource: &Resource) -> bool {
        if program.particular {
            return program.holds(resource);
        }
        let seen = |label: &Arc<str>| {
            let value = resource.spec.labels.get(&**label)?;
            Some((matches!(value, Value::Float(_)), value.clone()))
        };
        let sight: Sight = program.variables.iter().map(seen).collect();
        *self.0.entry(sight).or_insert_with(|| program.holds(resource))
    }
}

/// The parser's own nesting bound. Above the tree's, as brackets leave no nodes.
const PARSER_DEPTH_MAX: u16 = 64;

/// Functions an expression may call: name, arguments as `f(..)`, arguments as `x.f(..)`.
const FUNCTIONS: &[(&str, Option<usize>, Option<usize>)] = &[
    ("bool", Some(1), None),
    ("contains", None, Some(1)),
    ("double", Some(1), None),
    ("endsWith", None, Some(1)),
    ("int", Some(1), None),
    ("matches", Some(2), Some(1)),
    ("size", Some(1), Some(0)),
    ("startsWith", None, Some(1)),
    ("string", Some(1), None),
    ("uint", Some(1), None),
];

const OPERATORS: &[&str] = &[
    operators::ADD,
    operators::CONDITIONAL,
    operators::DIVIDE,
    operators::EQUALS,
    operators::GREATER,
    operators::GREATER_EQUALS,
    operators::IN,
    operators::INDEX,
    operators::LESS,
    operators::LESS_EQUALS,
    operators::LOGICAL_AND,
    operators::LOGICAL_NOT,
    operators::LOGICAL_OR,
    operators::MODULO,
    operators::MULTIPLY,
    operators::NEGATE,
    operators::NOT_EQUALS,
    operators::SUBSTRACT,
];

/// Ours: a text and a compiled pattern.
const MATCHES: &str = "@matches";

/// Building it takes longer than a hundred evaluations, so it is built once.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    env.add_overload(MATCHES, MATCHES, vec![STRING_TYPE, pattern_type()], matches_pattern)
        .expect("the standard library declares no function whose name begins with @");
    Arc::new(env)
});

fn explain(errors: &ParseErrors) -> String {
    let Some(error) = errors.errors.first() else { return "the expression cannot be parsed".to_owned() };
    let problem = error.msg.trim_start_matches("Syntax error: ");
    let mut problem: String = problem.lines().next().unwrap_or_default().chars().take(200).collect();
    problem = problem.replace("<EOF>", "the end");
    if problem.contains("has() macro") {
        problem.push_str("; write `has(labels.x)`");
    }
    match error.pos {
        (line, _) if line < 1 => problem,
        (1, column) => format!("at character {column} of the expression: {problem}"),
        (line, column) => format!("at line {line}, character {column} of the expression: {problem}"),
    }
}

/// What the walk over a syntax tree has counted and found so far.
#[derive(Default)]
struct Guard {
    nodes: usize,
    additions: usize,
    variables: BTreeSet<Arc<str>>,
    patterns: Vec<Pattern>,
    particular: bool,
}

impl Guard {
    fn walk(&mut self, root: &mut IdedExpr) -> Result<(), String> {
        let mut stack = vec![(root, 1)];
        while let Some((node, depth)) = stack.pop() {
            self.nodes += 1;
            if self.nodes > CEL_NODES_MAX || depth > CEL_DEPTH_MAX {
                return Err(format!(
                    "the expression is too large: expected at most {CEL_NODES_MAX} parts, nested at most \
                     {CEL_DEPTH_MAX} deep; split it over several labels"
                ));
            }
            self.rewrite(&mut node.expr)?;
            let mut push = |child| stack.push((child, depth + 1));
            match &mut node.expr {
                Expr::Call(call) => {
                    call.target.as_deref_mut().into_iter().for_each(&mut push);
                    call.args.iter_mut().for_each(&mut push);
                }
                // Rewritten above: only `has(labels.x)` is left, whose operand is done.
                Expr::Ident(_) | Expr::Literal(_) | Expr::Select(_) => {}
                Expr::List(list) => list.elements.iter_mut().for_each(&mut push),
                Expr::Map(map) => {
                    for entry in &mut map.entries {
                        match &mut entry.expr {
                            EntryExpr::MapEntry(entry) => {
                                [&mut entry.key, &mut entry.value].into_iter().for_each(&mut push)
                            }
                            EntryExpr::StructField(_) => return Err(NO_STRUCTS.to_owned()),
                        }
                    }
                }
                Expr::Struct(_) => return Err(NO_STRUCTS.to_owned()),
                Expr::Comprehension(_) => {
                    return Err(
                        "`all`, `exists`, `exists_one`, `map` and `filter` are not supported, as labels are no \
                                lists; use `in`, `&&` and `||`"
                            .to_owned(),
                    );
                }
                Expr::Unspecified => return Err("the expression has an empty part".to_owned()),
            }
        }
        Ok(())
    }

    /// Makes the names of one node ours, and checks what it calls. Children keep theirs.
    fn rewrite(&mut self, expr: &mut Expr) -> Result<(), String> {
        match expr {
            Expr::Ident(name) if name.starts_with('@') => {}
            Expr::Ident(_) if is_labels(expr) => {
                self.particular = true;
                *expr = Expr::Ident("@labels".to_owned());
            }
            Expr::Ident(name) => *expr = self.label(name.trim_start_matches('.')),
            Expr::Select(select) if is_labels(&select.operand.expr) => {
                let label = self.label(&select.field);
                if select.test {
                    select.operand.expr = Expr::Ident("@labels".to_owned());
                } else {
                    *expr = label;
                }
            }
            Expr::Select(select) => {
                let field = &select.field;
                return Err(format!(
                    "labels have no fields, found `.{field}`: write `labels['…']` for a key with dots"
                ));
            }
            Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
                (operators::INDEX, [map, key]) if is_labels(&map.expr) => {
                    if let Some(key) = constant(&key.expr) {
                        *expr = self.label(key);
                    }
                }
                (operators::IN, [key, map]) if is_labels(&map.expr) => {
                    if let Some(key) = constant(&key.expr) {
                        self.label(key);
                    }
                }
                (operators::ADD, _) => {
                    self.additions += 1;
                    if self.additions > CEL_ADDITIONS_MAX {
                        return Err(format!("expected at most {CEL_ADDITIONS_MAX} additions"));
                    }
                }
                (name, _) if OPERATORS.contains(&name) || name == MATCHES => {}
                (name, args) => {
                    check_function(name, args.len(), call.target.is_some())?;
                    if name == "matches" {
                        let mut args = mem::take(&mut call.args);
                        args.splice(0..0, call.target.take().map(|target| *target));
                        *expr = self.compile(args)?;
                    }
                }
            },
            _ => {}
        }
        Ok(())
    }

    /// The variable of a label, and a note that it is asked for.
    fn label(&mut self, key: &str) -> Expr {
        match key {
            "pool" => {}
            "name" => self.particular = true,
            _ => {
                self.variables.insert(key.into());
            }
        }
        Expr::Ident(format!("@{key}"))
    }

    /// `matches(text, 'pattern')` with its pattern compiled.
    fn compile(&mut self, mut args: Vec<IdedExpr>) -> Result<Expr, String> {
        let Some((pattern, source)) =
            args.last_mut().and_then(|last| constant(&last.expr).map(str::to_owned).map(|source| (last, source)))
        else {
            return Err("expected the pattern of `matches` as a text in quotes".to_owned());
        };
        if self.patterns.len() == CEL_PATTERNS_MAX {
            return Err(format!("expected at most {CEL_PATTERNS_MAX} patterns; join them with `|`"));
        }
        let regex = regex::RegexBuilder::new(&source)
            .size_limit(CEL_PATTERN_BYTES_MAX)
            .dfa_size_limit(CEL_PATTERN_BYTES_MAX)
            .nest_limit(32)
            .build()
            .map_err(|error| {
                let shown: String = source.chars().take(80).collect();
                format!("{shown:?} is not a usable pattern: {}", what_is_wrong(&error))
            })?;
        pattern.expr = Expr::Ident(format!("@/{}", self.patterns.len()));
        self.patterns.push(Pattern(regex));
        Ok(Expr::Call(cel::common::ast::CallExpr { func_name: MATCHES.to_owned(), target: None, args }))
    }
}

const NO_STRUCTS: &str = "structs are not supported: labels are texts, numbers and bools";

fn what_is_wrong(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => {
            "it becomes too large; count less, and write [a-z0-9] instead of \\w, which has all letters there are"
                .to_owned()
        }
        other => {
            let text = other.to_string();
            text.lines().last().unwrap_or_default().trim_start_matches("error: ").chars().take(120).collect()
        }
    }
}

fn is_labels(expr: &Expr) -> bool {
    matches!(expr, Expr::Ident(name) if matches!(name.as_str(), "labels" | ".labels"))
}

fn constant(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

fn check_function(name: &str, args: usize, member: bool) -> Result<(), String> {
    let Some((_, global, of_value)) = FUNCTIONS.iter().find(|(known, ..)| *known == name) else {
        let known: Vec<&str> = FUNCTIONS.iter().map(|(known, ..)| *known).collect();
        let shown: String = name.chars().take(40).collect();
        return Err(format!("there is no function `{shown}`; there are `has` and {}", known.join(", ")));
    };
    if *(if member { of_value } else { global }) == Some(args) {
        return Ok(());
    }
    let form = match (of_value, global) {
        (Some(0), _) => format!("x.{name}()"),
        (Some(_), _) => format!("x.{name}('…')"),
        (None, _) => format!("{name}(x)"),
    };
    Err(format!("expected `{form}`"))
}

/// A compiled pattern, which only `@matches` takes.
#[derive(Clone, Debug)]
struct Pattern(regex::Regex);

static PATTERN_TYPE: LazyLock<Type> = LazyLock::new(pattern_type);

fn pattern_type() -> Type {
    Type::new_opaque_type("leasehold.pattern")
}

impl StaticVal for Pattern {}

impl Val for Pattern {
    fn get_type(&self) -> &Type {
        &PATTERN_TYPE
    }

    fn cel_type() -> &'static Type {
        &PATTERN_TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

fn matches_pattern<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [text, pattern] = args.as_slice() else { return Err(ExecutionError::invalid_argument_count(2, args.len())) };
    match (text.downcast_ref::<CelString>(), pattern.downcast_ref::<Pattern>()) {
        (Some(text), Some(pattern)) => Ok(CowVal::owned(CelBool::from(pattern.0.is_match(text.inner())))),
        _ => Err(ExecutionError::function_error("matches", "expected a text and a pattern")),
    }
}

/// What the names of an expression mean for one resource. Nothing is copied.
struct Scope<'a> {
    resource: &'a Resource,
    patterns: &'a [Pattern],
}

impl VariableResolver for Scope<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let name = variable.strip_prefix('@')?;
        if name == "labels" {
            return Some(CowVal::owned(Labels(self.resource)));
        }
        match name.strip_prefix('/') {
            Some(number) => {
                self.patterns.get(number.parse::<usize>().ok()?).map(|pattern| CowVal::Borrowed(pattern as _))
            }
            None => look_up(self.resource, name),
        }
    }
}

fn look_up<'b>(resource: &'b Resource, key: &str) -> Option<CowVal<'b, 'b>> {
    match key {
        "name" => Some(CowVal::owned(CelString::from(resource.spec.name.as_str()))),
        "pool" => Some(CowVal::owned(CelString::from(resource.spec.pool.as_str()))),
        _ => Some(match resource.spec.labels.get(key)? {
            Value::Bool(truth) => CowVal::owned(CelBool::from(*truth)),
            Value::Int(number) => CowVal::owned(CelInt::from(*number)),
            Value::Float(number) => CowVal::owned(CelDouble::from(*number)),
            Value::Text(text) => CowVal::owned(CelString::from(&**text)),
        }),
    }
}

/// The variable `labels`: answers `labels[x]`, `has(labels.x)` and `x in labels`.
#[derive(Clone, Copy, Debug)]
struct Labels<'a>(&'a Resource);

impl Val for Labels<'_> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(*self)
    }
}

impl Container for Labels<'_> {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        let key = key.downcast_ref::<CelString>().ok_or_else(|| ExecutionError::no_such_key("labels"))?;
        Ok(look_up(self.0, key.inner()).is_some())
    }
}

impl<'a> Indexer for Labels<'a> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let missing = || ExecutionError::no_such_key("labels");
        let key = key.downcast_ref::<CelString>().ok_or_else(missing)?;
        look_up(self.0, key.inner()).ok_or_else(missing)
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(key).map(CowVal::into_owned)
    }
}

#[cfg(test)]
#[path = "cel_tests.rs"]
mod tests;
