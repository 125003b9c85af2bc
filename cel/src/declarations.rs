//! Which functions there are, and of which types: the standard ones and those of Kubernetes.
//!
//! A line is `name(arguments) result`, or `[receiver] name(arguments) result` for one that is
//! called on a value; several names may share a line. Capital letters stand for any type.
//!
//! Upstream: `common/stdlib` and `ext` of cel-go, `pkg/cel/library` of the API server.

use std::{collections::HashMap, sync::LazyLock};

use crate::types::Type;

/// One way to call a function. For a member the first argument is the receiver.
#[derive(Debug)]
pub(crate) struct Overload {
    pub member: bool,
    pub arguments: Vec<Type>,
    pub result: Type,
}

pub(crate) type Functions = HashMap<&'static str, Vec<Overload>>;

/// What every expression may call.
pub(crate) static COMMON: LazyLock<Functions> = LazyLock::new(|| {
    parse(&[
        STANDARD, OPTIONAL, STRINGS, LISTS, NETWORK, AMOUNTS, AUTHORIZER,
    ])
});

/// What expressions may call that make JSON patches.
pub(crate) static PATCHES: LazyLock<Functions> =
    LazyLock::new(|| parse(&["jsonpatch.escapeKey(string) string"]));

const STANDARD: &str = "
_?_:_(bool, A, A) A
_&&_ _||_(bool, bool) bool
!_ @not_strictly_false __not_strictly_false__(bool) bool
_==_ _!=_(A, A) bool
_+_(bytes, bytes) bytes
_+_ _-_ _*_ _/_(double, double) double
_+_ _-_(duration, duration) duration
_+_(duration, timestamp) timestamp
_+_ _-_(timestamp, duration) timestamp
_-_(timestamp, timestamp) duration
_+_ _-_ _*_ _/_ _%_(int, int) int
_+_(list(A), list(A)) list(A)
_+_(string, string) string
_+_ _-_ _*_ _/_ _%_(uint, uint) uint
-_(double) double
-_(int) int
_<_ _<=_ _>_ _>=_(bool, bool) bool
_<_ _<=_ _>_ _>=_(int, int) bool
_<_ _<=_ _>_ _>=_(int, double) bool
_<_ _<=_ _>_ _>=_(int, uint) bool
_<_ _<=_ _>_ _>=_(uint, uint) bool
_<_ _<=_ _>_ _>=_(uint, double) bool
_<_ _<=_ _>_ _>=_(uint, int) bool
_<_ _<=_ _>_ _>=_(double, double) bool
_<_ _<=_ _>_ _>=_(double, int) bool
_<_ _<=_ _>_ _>=_(double, uint) bool
_<_ _<=_ _>_ _>=_(string, string) bool
_<_ _<=_ _>_ _>=_(bytes, bytes) bool
_<_ _<=_ _>_ _>=_(timestamp, timestamp) bool
_<_ _<=_ _>_ _>=_(duration, duration) bool
_[_](list(A), int) A
_[_](map(A, B), A) B
@in(A, list(A)) bool
@in(A, map(A, B)) bool
size(bytes) int
size(list(A)) int
size(map(A, B)) int
size(string) int
[bytes] size() int
[list(A)] size() int
[map(A, B)] size() int
[string] size() int
type(A) type(A)
bool(bool) bool
bool(string) bool
bytes(bytes) bytes
bytes(string) bytes
double(double) double
double(int) double
double(string) double
double(uint) double
duration(duration) duration
duration(int) duration
duration(string) duration
dyn(A) dyn
int(int) int
int(double) int
int(duration) int
int(string) int
int(timestamp) int
int(uint) int
string(string) string
string(bool) string
string(bytes) string
string(double) string
string(duration) string
string(int) string
string(timestamp) string
string(uint) string
timestamp(timestamp) timestamp
timestamp(int) timestamp
timestamp(string) timestamp
uint(uint) uint
uint(double) uint
uint(int) uint
uint(string) uint
matches(string, string) bool
[string] contains endsWith startsWith matches(string) bool
[timestamp] getFullYear getMonth getDayOfYear getDayOfMonth getDate getDayOfWeek() int
[timestamp] getFullYear getMonth getDayOfYear getDayOfMonth getDate getDayOfWeek(string) int
[timestamp] getHours getMinutes getSeconds getMilliseconds() int
[timestamp] getHours getMinutes getSeconds getMilliseconds(string) int
[duration] getHours getMinutes getSeconds getMilliseconds() int
cel.@mapInsert(map(A, B), A, B) map(A, B)
cel.@mapInsert(map(A, B), map(A, B)) map(A, B)
";

const OPTIONAL: &str = "
optional.of optional.ofNonZeroValue(A) optional_type(A)
optional.none() optional_type(A)
[optional_type(A)] value() A
[optional_type(A)] hasValue() bool
[optional_type(A)] or(optional_type(A)) optional_type(A)
[optional_type(A)] orValue(A) A
_[?_](list(A), int) optional_type(A)
_[?_](optional_type(list(A)), int) optional_type(A)
_[?_](map(A, B), A) optional_type(B)
_[?_](optional_type(map(A, B)), A) optional_type(B)
_[_](optional_type(list(A)), int) optional_type(A)
_[_](optional_type(map(A, B)), A) optional_type(B)
[list(A)] first last() optional_type(A)
optional.unwrap(list(optional_type(A))) list(A)
[list(optional_type(A))] unwrapOpt() list(A)
";

const STRINGS: &str = "
[string] charAt(int) string
[string] indexOf lastIndexOf(string) int
[string] indexOf lastIndexOf(string, int) int
[string] lowerAscii upperAscii trim() string
[string] replace(string, string) string
[string] replace(string, string, int) string
[string] split(string) list(string)
[string] split(string, int) list(string)
[string] substring(int) string
[string] substring(int, int) string
[string] format(list(dyn)) string
strings.quote(string) string
[list(string)] join() string
[list(string)] join(string) string
[string] find(string) string
[string] findAll(string) list(string)
[string] findAll(string, int) list(string)
";

const LISTS: &str = "
[list(int)] isSorted() bool
[list(uint)] isSorted() bool
[list(double)] isSorted() bool
[list(bool)] isSorted() bool
[list(duration)] isSorted() bool
[list(timestamp)] isSorted() bool
[list(string)] isSorted() bool
[list(bytes)] isSorted() bool
[list(int)] sum min max() int
[list(uint)] sum min max() uint
[list(double)] sum min max() double
[list(duration)] sum min max() duration
[list(bool)] min max() bool
[list(timestamp)] min max() timestamp
[list(string)] min max() string
[list(bytes)] min max() bytes
[list(A)] indexOf lastIndexOf(A) int
[list(A)] slice(int, int) list(A)
[list(list(A))] flatten() list(A)
[list(dyn)] flatten(int) list(dyn)
[list(int)] sort() list(int)
[list(uint)] sort() list(uint)
[list(double)] sort() list(double)
[list(bool)] sort() list(bool)
[list(duration)] sort() list(duration)
[list(timestamp)] sort() list(timestamp)
[list(string)] sort() list(string)
[list(bytes)] sort() list(bytes)
[list(A)] @sortByAssociatedKeys(list(int)) list(A)
[list(A)] @sortByAssociatedKeys(list(uint)) list(A)
[list(A)] @sortByAssociatedKeys(list(double)) list(A)
[list(A)] @sortByAssociatedKeys(list(bool)) list(A)
[list(A)] @sortByAssociatedKeys(list(duration)) list(A)
[list(A)] @sortByAssociatedKeys(list(timestamp)) list(A)
[list(A)] @sortByAssociatedKeys(list(string)) list(A)
[list(A)] @sortByAssociatedKeys(list(bytes)) list(A)
lists.range(int) list(int)
[list(A)] reverse distinct() list(A)
sets.contains sets.equivalent sets.intersects(list(A), list(A)) bool
";

const NETWORK: &str = "
url(string) kubernetes.URL
isURL(string) bool
[kubernetes.URL] getScheme getHost getHostname getPort getEscapedPath() string
[kubernetes.URL] getQuery() map(string, list(string))
ip(string) net.IP
isIP ip.isCanonical(string) bool
[net.IP] family() int
[net.IP] isUnspecified isLoopback isLinkLocalMulticast isLinkLocalUnicast isGlobalUnicast() bool
string(net.IP) string
cidr(string) net.CIDR
isCIDR(string) bool
[net.CIDR] containsIP(string) bool
[net.CIDR] containsIP(net.IP) bool
[net.CIDR] containsCIDR(string) bool
[net.CIDR] containsCIDR(net.CIDR) bool
[net.CIDR] ip() net.IP
[net.CIDR] prefixLength() int
[net.CIDR] masked() net.CIDR
string(net.CIDR) string
";

const AMOUNTS: &str = "
quantity(string) kubernetes.Quantity
isQuantity(string) bool
sign(kubernetes.Quantity) int
[kubernetes.Quantity] isGreaterThan isLessThan(kubernetes.Quantity) bool
[kubernetes.Quantity] compareTo(kubernetes.Quantity) int
[kubernetes.Quantity] asApproximateFloat() double
[kubernetes.Quantity] asInteger() int
[kubernetes.Quantity] isInteger() bool
[kubernetes.Quantity] add sub(kubernetes.Quantity) kubernetes.Quantity
[kubernetes.Quantity] add sub(int) kubernetes.Quantity
semver(string) kubernetes.Semver
semver(string, bool) kubernetes.Semver
isSemver(string) bool
isSemver(string, bool) bool
[kubernetes.Semver] isGreaterThan isLessThan(kubernetes.Semver) bool
[kubernetes.Semver] compareTo(kubernetes.Semver) int
[kubernetes.Semver] major minor patch() int
format.dns1123Label format.dns1123Subdomain format.dns1035Label() kubernetes.NamedFormat
format.qualifiedName format.dns1123LabelPrefix format.dns1123SubdomainPrefix() kubernetes.NamedFormat
format.dns1035LabelPrefix format.labelValue format.uri format.uuid() kubernetes.NamedFormat
format.byte format.date format.datetime() kubernetes.NamedFormat
format.named(string) optional_type(kubernetes.NamedFormat)
[kubernetes.NamedFormat] validate(string) optional_type(list(string))
";

const AUTHORIZER: &str = "
[kubernetes.authorization.Authorizer] path(string) kubernetes.authorization.PathCheck
[kubernetes.authorization.Authorizer] group(string) kubernetes.authorization.GroupCheck
[kubernetes.authorization.Authorizer] serviceAccount(string, string) kubernetes.authorization.Authorizer
[kubernetes.authorization.GroupCheck] resource(string) kubernetes.authorization.ResourceCheck
[kubernetes.authorization.ResourceCheck] subresource namespace name(string) kubernetes.authorization.ResourceCheck
[kubernetes.authorization.ResourceCheck] fieldSelector labelSelector(string) kubernetes.authorization.ResourceCheck
[kubernetes.authorization.PathCheck] check(string) kubernetes.authorization.Decision
[kubernetes.authorization.ResourceCheck] check(string) kubernetes.authorization.Decision
[kubernetes.authorization.Decision] errored allowed() bool
[kubernetes.authorization.Decision] error reason() string
";

fn parse(tables: &[&'static str]) -> Functions {
    let mut functions = Functions::new();
    for line in tables.iter().flat_map(|table| table.lines()) {
        let (receiver, rest) = match line.strip_prefix('[') {
            Some(rest) => {
                let (receiver, rest) = rest.split_once("] ").unwrap_or((rest, ""));
                (Some(receiver), rest)
            }
            None => (None, line),
        };
        let Some((names, rest)) = rest.split_once('(') else {
            continue;
        };
        let (arguments, rest) = type_list(rest);
        let result = parse_type(rest.trim_start()).0;
        for name in names.split(' ') {
            let receiver = receiver.iter().map(|text| parse_type(text).0);
            functions.entry(name).or_default().push(Overload {
                member: line.starts_with('['),
                arguments: receiver.chain(arguments.iter().cloned()).collect(),
                result: result.clone(),
            });
        }
    }
    functions
}

/// Reads types up to the closing parenthesis; returns what is behind it.
fn type_list(text: &str) -> (Vec<Type>, &str) {
    let mut types = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix(')') {
            return (types, rest);
        }
        if rest.is_empty() {
            return (types, rest);
        }
        let (one, after) = parse_type(rest);
        types.push(one);
        rest = after;
    }
}

/// Reads one type; returns what is behind it.
pub(crate) fn parse_type(text: &str) -> (Type, &str) {
    let end = text.find([',', '(', ')', ' ', ']']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let (parts, rest) = match rest.strip_prefix('(') {
        Some(rest) => type_list(rest),
        None => (Vec::new(), rest),
    };
    let found = match (name, parts.as_slice()) {
        ("list", [of]) => Type::list(of.clone()),
        ("map", [key, value]) => Type::map(key.clone(), value.clone()),
        ("optional_type", [of]) => Type::optional(of.clone()),
        ("type", [of]) => Type::Type(of.clone().into()),
        (name, _) => plain(name),
    };
    (found, rest)
}

fn plain(name: &str) -> Type {
    match name {
        "any" => Type::Any,
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "double" => Type::Double,
        "duration" => Type::Duration,
        "dyn" => Type::Dyn,
        "int" => Type::Int,
        "string" => Type::String,
        "timestamp" => Type::Timestamp,
        "uint" => Type::Uint,
        "A" => Type::Open('A'),
        "B" => Type::Open('B'),
        name => Type::object(name),
    }
}
