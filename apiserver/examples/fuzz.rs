//! Mutated input for every decoder that reads bytes from the network: JSON, YAML and protobuf
//! bodies, the four patches, selectors, continue tokens and bearer tokens.
//!
//! `fuzz DECODER SECONDS [SEED]`; see `fuzz/README.md`. It ends with a failure on the first panic,
//! on an answer that takes more than [`SLOWEST`], and when memory grows beyond [`MAX_RESIDENT_BYTES`].

use std::{
    fs, panic,
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use coracle_apiserver::{
    Config, Lookup, Plugins,
    authn::{
        Requests, Tokens,
        oidc::Anonymous,
        service_accounts::{ServiceAccounts, SigningKey},
    },
    testing::TestServer,
};
use http::{Method, Request, header};
use serde_json::json;

const MAX_RESIDENT_BYTES: u64 = 1 << 30;
/// A continue token of the future is waited for three seconds.
const SLOWEST: Duration = Duration::from_secs(5);
const MAX_INPUT_BYTES: usize = 64 << 10;
const ISSUER: &str = "https://kubernetes.default.svc";

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DECODERS: &[&str] = &[
    "json", "yaml", "protobuf", "patch", "selector", "continue", "token",
];

/// Texts that mean something to one decoder or another.
const WORDS: &[&str] = &[
    "null",
    "true",
    "{}",
    "[]",
    "[[[[[[[[",
    "{\"a\":",
    "\"",
    "\\u0000",
    "\\ud800",
    "-0",
    "1e999",
    "9223372036854775808",
    "0x",
    "!!",
    "&a",
    "*a",
    "<<: ",
    "---\n",
    "|\n",
    "? ",
    "k8s\0",
    "\u{ff}",
    "$patch",
    "$retainKeys",
    "$setElementOrder/",
    "$deleteFromPrimitiveList/",
    "delete",
    "/-",
    "~1",
    "~0",
    "/spec/containers/0",
    "f:",
    "k:{",
    " in (",
    " notin ",
    "!",
    ",",
    "=",
    "!=",
    ">",
    "metadata.name",
    "\\,",
    ".",
    "e30",
    "apiVersion",
    "kind",
    "metadata",
    "1Gi",
    "2006-01-02T15:04:05Z",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (Some(which), Some(seconds)) = (
        arguments.first(),
        arguments.get(1).and_then(|seconds| seconds.parse().ok()),
    ) else {
        eprintln!("fuzz all|{} SECONDS [SEED]", DECODERS.join("|"));
        return ExitCode::from(2);
    };
    let seed = match arguments.get(2).and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed,
        None => u64::from(std::process::id()) << 20 | 1,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    for decoder in DECODERS
        .iter()
        .filter(|name| which == "all" || which == *name)
    {
        println!("{decoder}: {seconds} s with seed {seed}");
        let fuzzer = Fuzzer::new(decoder, seed);
        match runtime.block_on(fuzzer.run(Duration::from_secs(seconds))) {
            Ok(inputs) => println!("{decoder}: {inputs} inputs"),
            Err((problem, input)) => {
                let _ = fs::write("fuzz-failure", &input);
                println!("{decoder}: {problem}\n{}", input.escape_ascii());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Xorshift: what it does can be repeated from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or(0) % limit.max(1)
    }
}

struct Fuzzer {
    decoder: &'static str,
    corpus: Vec<Vec<u8>>,
    random: Random,
}

impl Fuzzer {
    fn new(decoder: &&'static str, seed: u64) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz")
            .join(decoder);
        let mut files: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.expect("a folder can be read").path())
            .collect();
        files.sort();
        let corpus = files
            .iter()
            .map(|file| fs::read(file).expect("a file can be read"))
            .collect();
        Fuzzer {
            decoder,
            corpus,
            random: Random(seed),
        }
    }

    async fn run(mut self, time: Duration) -> Result<u64, (String, Vec<u8>)> {
        let panicked = note_panics();
        let server = start().await;
        let (end, mut inputs) = (Instant::now() + time, 0);
        while Instant::now() < end {
            let input = self.input();
            let begun = Instant::now();
            for request in self.requests(&input) {
                server.request(request).await;
            }
            let fail = |problem: String| Err((problem, input.clone()));
            if let Some(problem) = panicked.lock().expect("nobody panics with it").take() {
                return fail(problem);
            }
            if begun.elapsed() > SLOWEST {
                return fail(format!("took {:?}", begun.elapsed()));
            }
            inputs += 1;
            if inputs % 1024 == 0 && resident_bytes() > MAX_RESIDENT_BYTES {
                return fail(format!("{} bytes are resident", resident_bytes()));
            }
        }
        Ok(inputs)
    }

    /// One of the corpus, with a few mutations.
    fn input(&mut self) -> Vec<u8> {
        let index = self.random.below(self.corpus.len());
        let mut input = self.corpus[index].clone();
        if self.decoder == "token" || self.decoder == "continue" {
            return self.within_base64(&input);
        }
        for _ in 0..=self.random.below(6) {
            self.mutate(&mut input);
        }
        input
    }

    /// Mutations of what the dotted parts of a token hold.
    fn within_base64(&mut self, token: &[u8]) -> Vec<u8> {
        let mut parts: Vec<Vec<u8>> = token
            .split(|byte| *byte == b'.')
            .map(<[u8]>::to_vec)
            .collect();
        let index = self.random.below(parts.len());
        match URL_SAFE_NO_PAD.decode(&parts[index]) {
            Ok(mut inner) if self.random.below(4) > 0 => {
                self.mutate(&mut inner);
                parts[index] = URL_SAFE_NO_PAD.encode(inner).into_bytes();
            }
            _ => self.mutate(&mut parts[index]),
        }
        parts.join(&b'.')
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        let at = self.random.below(input.len() + 1);
        let end = (at + 1 + self.random.below(16)).min(input.len());
        match self.random.below(8) {
            0 if at < input.len() => input[at] ^= 1 << self.random.below(8),
            1 if at < input.len() => input[at] = u8::try_from(self.random.below(256)).unwrap_or(0),
            2 if at < end => drop(input.drain(at..end)),
            3 if at < end => {
                let part = input[at..end].to_vec();
                for _ in 0..=self.random.below(64) {
                    input.splice(at..at, part.iter().copied());
                }
            }
            4 => {
                let other = self.random.below(self.corpus.len());
                let other = &self.corpus[other];
                let from = self.random.below(other.len());
                input.splice(at.., other[from.min(other.len())..].iter().copied());
            }
            5 => input.truncate(at),
            _ => {
                let word = WORDS[self.random.below(WORDS.len())];
                input.splice(at..at, word.bytes());
            }
        }
        input.truncate(MAX_INPUT_BYTES);
    }

    /// The requests that bring the input to its decoder. None of them changes the store.
    fn requests(&mut self, input: &[u8]) -> Vec<Request<Body>> {
        let write = |method: Method, target: String, media_type: &str| {
            Request::builder()
                .method(method)
                .uri(target)
                .header(header::CONTENT_TYPE, media_type)
                .body(Body::from(input.to_vec()))
                .expect("a request")
        };
        let escaped: String =
            percent_encoding::percent_encode(input, percent_encoding::NON_ALPHANUMERIC).to_string();
        let read = |query: String| {
            let request = Request::builder().uri(format!("/api/v1/pods?limit=2&{query}"));
            request.body(Body::empty()).expect("a request")
        };
        const PODS: &str = "/api/v1/namespaces/default/pods?dryRun=All&fieldValidation=";
        let validation = ["Ignore", "Warn", "Strict"][self.random.below(3)];
        match self.decoder {
            "json" => vec![write(
                Method::POST,
                format!("{PODS}{validation}"),
                "application/json",
            )],
            "yaml" => vec![write(
                Method::POST,
                format!("{PODS}{validation}"),
                "application/yaml",
            )],
            "protobuf" => {
                let media_type = "application/vnd.kubernetes.protobuf";
                let maps = format!("{CONFIG_MAPS}?dryRun=All");
                vec![
                    write(Method::POST, format!("{PODS}{validation}"), media_type),
                    write(Method::POST, maps, media_type),
                ]
            }
            "patch" => {
                let target = format!("{CONFIG_MAPS}/base?dryRun=All&fieldManager=f");
                let target = format!("{target}&fieldValidation={validation}");
                [
                    "json-patch+json",
                    "merge-patch+json",
                    "strategic-merge-patch+json",
                    "apply-patch+yaml",
                ]
                .map(|form| {
                    write(
                        Method::PATCH,
                        target.clone(),
                        &format!("application/{form}"),
                    )
                })
                .into()
            }
            "selector" => vec![
                read(format!("labelSelector={escaped}")),
                read(format!("fieldSelector={escaped}")),
            ],
            "continue" => vec![read(format!("continue={escaped}"))],
            _ => {
                let bearer = [&b"Bearer "[..], input].concat();
                let Ok(bearer) = http::HeaderValue::from_bytes(&bearer) else {
                    return Vec::new();
                };
                let request = Request::builder()
                    .uri(CONFIG_MAPS)
                    .header(header::AUTHORIZATION, bearer);
                vec![request.body(Body::empty()).expect("a request")]
            }
        }
    }
}

/// What the last panic said, of whatever task.
fn note_panics() -> Arc<Mutex<Option<String>>> {
    let last = Arc::new(Mutex::new(None));
    let noted = last.clone();
    panic::set_hook(Box::new(move |panic| {
        *noted.lock().expect("nobody panics with it") = Some(panic.to_string());
    }));
    last
}

fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = pages
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    resident.unwrap_or_default() * 4096
}

/// A server that knows bearer tokens, lets everyone do everything, and has an object to patch.
async fn start() -> TestServer {
    let server = TestServer::with(Config::default(), |registry| {
        let key = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        let accounts = Arc::new(ServiceAccounts::new(
            ISSUER.to_owned(),
            "127.0.0.1:6443".to_owned(),
            SigningKey::from_pem(key.as_bytes()).expect("the key is of a known kind"),
            Lookup::new(registry.clone()),
        ));
        let audiences = accounts.audiences().to_vec();
        let tokens = Arc::new(Tokens::new(vec![accounts], audiences));
        let anonymous = Arc::new(ArcSwap::from_pointee(Anonymous {
            enabled: true,
            ..Anonymous::default()
        }));
        Plugins {
            authenticator: Arc::new(Requests::new(vec![tokens], anonymous)),
            ..Plugins::default()
        }
    })
    .await;
    let base = json!({
        "metadata": {"name": "base", "labels": {"a": "b"}, "finalizers": ["a/b"]},
        "data": {"k": "v"},
    });
    let created = server.post(CONFIG_MAPS, &base).await;
    assert_eq!(created.code, 201, "{}", created.message());
    server
}
