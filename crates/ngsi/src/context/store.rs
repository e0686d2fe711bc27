//! Finds contexts, resolves them once and keeps them.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indexmap::IndexMap;
use serde_json::Value;
use smol_str::SmolStr;

use super::build::Terms;
use super::{CONURB_CONTEXT_URL, Context, embedded};
use crate::error::{Error, Result, described, shown};

/// The longest context document, in bytes.
pub const CONTEXT_BYTES_MAX: usize = 1 << 20;

/// How many resolved contexts, and how many fetched documents, are kept; the oldest goes first.
pub const CONTEXTS_MAX: usize = 256;

/// Where a node serves the contexts that it keeps itself; what follows is a context's local id.
const LOCAL_PATH: &str = "/ngsi-ld/v1/jsonldContexts/";

/// How deep contexts may refer to contexts.
const DEPTH_MAX: usize = 8;

/// How many documents one context may name, directly and indirectly.
const DOCUMENTS_MAX: usize = 32;

/// Fetches context documents. The edge supplies it; it may take its time, and must have its own time-out.
pub trait Loader: Send + Sync {
    /// The text of the document at `url`.
    ///
    /// Errors: [`LoadError`] with the reason for people.
    fn load(&self, url: &str) -> Result<String, LoadError>;
}

/// Why a context document could not be fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct LoadError {
    /// What happened: no answer in time, status 404, ...
    pub reason: String,
}

/// All contexts that a node knows. Cheap to ask: what was resolved once is shared.
pub struct ContextStore {
    loader: Option<Box<dyn Loader>>,
    /// Fetched documents by URL.
    documents: Mutex<IndexMap<String, Arc<Value>>>,
    /// Documents that this node serves itself, by their local ids.
    local: Mutex<HashMap<String, Arc<Value>>>,
    /// Resolved contexts by the canonical text of the `@context`.
    resolved: Mutex<IndexMap<String, Arc<Context>>>,
    default: Arc<Context>,
    core: Arc<Context>,
}

impl std::fmt::Debug for ContextStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContextStore").field("default", &self.default.url()).finish_non_exhaustive()
    }
}

/// A mutex that survives a panic elsewhere: the tables behind it are whole between any two statements.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ContextStore {
    /// A store whose default context is `default_user_url` (usually [`super::DEFAULT_USER_CONTEXT_URL`]) with conurb's own words and the
    /// core context.
    ///
    /// Without a loader only the embedded contexts, and those given by [`ContextStore::insert`], are known.
    /// Errors: the default context cannot be had, or is wrong.
    pub fn new(default_user_url: Option<&str>, loader: Option<Box<dyn Loader>>) -> Result<Self> {
        let core = Arc::new(Terms::default().finish(Vec::new(), SmolStr::new_static("core")));
        let mut store = Self {
            loader,
            documents: Mutex::default(),
            local: Mutex::default(),
            resolved: Mutex::default(),
            default: Arc::clone(&core),
            core,
        };
        let mut parts: Vec<Value> = default_user_url.into_iter().map(Value::from).collect();
        parts.push(Value::from(CONURB_CONTEXT_URL));
        store.default = store.resolve(&Value::Array(parts))?;
        Ok(store)
    }

    /// The context of a request that names none.
    #[must_use]
    pub const fn default_context(&self) -> &Arc<Context> {
        &self.default
    }

    /// The core context alone.
    #[must_use]
    pub const fn core_context(&self) -> &Arc<Context> {
        &self.core
    }

    /// The context behind the value of an `@context` member or a context URL: a URL, an object, or an array of these.
    ///
    /// Errors: [`crate::ErrorKind::LdContextNotAvailable`] naming the URL that could not be fetched;
    /// [`crate::ErrorKind::BadRequestData`] if a context is wrong or too large.
    pub fn resolve(&self, context: &Value) -> Result<Arc<Context>> {
        let mut user = Vec::new();
        user_parts(context, &mut user, 0)?;
        if user.is_empty() {
            return Ok(Arc::clone(&self.core));
        }
        let key = Value::Array(user.clone()).to_string();
        if key.len() > CONTEXT_BYTES_MAX {
            return Err(Error::bad(format!("{} bytes are more than the limit of {CONTEXT_BYTES_MAX}", key.len())).within("@context"));
        }
        if let Some(known) = locked(&self.resolved).get(&key) {
            return Ok(Arc::clone(known));
        }
        let mut terms = Terms::default();
        let mut n_documents = 0;
        for part in &user {
            self.add(part, &mut terms, 0, &mut n_documents, false)?;
        }
        let id = id_of(&key);
        let context = Arc::new(terms.finish(user, id));
        keep(&self.resolved, key, Arc::clone(&context));
        Ok(context)
    }

    /// The context at a URL, or the default context if there is none: what a `Link` header gives.
    ///
    /// Errors: as [`ContextStore::resolve`].
    pub fn resolve_url(&self, url: Option<&str>) -> Result<Arc<Context>> {
        match url {
            Some(url) => self.resolve(&Value::from(url)),
            None => Ok(Arc::clone(&self.default)),
        }
    }

    /// The context with this [`Context::id`], to serve a wrapper for it; none if it was never used or is forgotten.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<Arc<Context>> {
        [&self.default, &self.core]
            .into_iter()
            .find(|c| c.id() == id)
            .cloned()
            .or_else(|| locked(&self.resolved).values().find(|c| c.id() == id).cloned())
    }

    /// The URLs that [`ContextStore::resolve`] would have to fetch: an edge that fetches without blocking asks for these, fetches them,
    /// gives them to [`ContextStore::insert`], and asks again until there are none, at most as often as contexts may be nested.
    ///
    /// Errors: the context is wrong.
    pub fn missing(&self, context: &Value) -> Result<Vec<String>> {
        let (mut known, mut missing) = (Vec::new(), Vec::new());
        self.walk(context, &mut known, &mut missing)?;
        Ok(missing)
    }

    /// Sorts the URLs that a context names into those whose documents are here and those that are not.
    fn walk(&self, context: &Value, known: &mut Vec<String>, missing: &mut Vec<String>) -> Result<()> {
        let mut user = Vec::new();
        user_parts(context, &mut user, 0)?;
        let mut depth = 0;
        while !user.is_empty() && depth <= DEPTH_MAX {
            let mut inner = Vec::new();
            for part in user {
                let Value::String(url) = part else { continue };
                if known.contains(&url) || missing.contains(&url) {
                    continue;
                }
                match self.document(&url)? {
                    Some(document) => {
                        user_parts(inner_context(&document, &url)?, &mut inner, 0)?;
                        known.push(url);
                    }
                    None => missing.push(url),
                }
            }
            user = inner;
            depth += 1;
        }
        Ok(())
    }

    /// Keeps a fetched document.
    ///
    /// Errors: [`crate::ErrorKind::BadRequestData`] if it is not a context document.
    pub fn insert(&self, url: &str, text: &str) -> Result<()> {
        let document = parsed(url, text)?;
        inner_context(&document, url)?;
        let is_other = !embedded::is_core(url) && self.document(url)?.is_some_and(|old| *old != document);
        keep(&self.documents, url.to_owned(), Arc::new(document));
        if is_other {
            // Contexts resolved with the older text are stale now, also those that name it only indirectly.
            locked(&self.resolved).clear();
        }
        Ok(())
    }

    /// Keeps a context that this node serves itself under `…/ngsi-ld/v1/jsonldContexts/{id}`: whatever URL ends so means it from now on.
    ///
    /// `context` is the value of the member `@context`. The caller sees to it that it can be resolved, and that there are not too many.
    pub fn insert_local(&self, id: &str, context: Value) {
        locked(&self.local).insert(id.to_owned(), Arc::new(serde_json::json!({ "@context": context })));
    }

    /// The document that is kept under a local id.
    #[must_use]
    pub fn local(&self, id: &str) -> Option<Arc<Value>> {
        locked(&self.local).get(id).cloned()
    }

    /// Drops a document that this node serves itself, and what was resolved with it; true if it was there.
    pub fn forget_local(&self, id: &str) -> bool {
        let was_there = locked(&self.local).remove(id).is_some();
        locked(&self.resolved).clear();
        was_there
    }

    /// The URLs that a context names, directly or in documents that are known, the core context left out.
    ///
    /// Errors: the context is wrong.
    pub fn named(&self, context: &Value) -> Result<Vec<String>> {
        let (mut all, mut missing) = (Vec::new(), Vec::new());
        self.walk(context, &mut all, &mut missing)?;
        all.append(&mut missing);
        Ok(all)
    }

    /// Drops a fetched document and every context resolved with it; true if it was there.
    pub fn forget(&self, url: &str) -> bool {
        locked(&self.resolved).clear();
        locked(&self.documents).shift_remove(url).is_some()
    }

    /// The embedded document at `url`, to be served to others.
    #[must_use]
    pub fn embedded(url: &str) -> Option<&'static str> {
        embedded::find(url)
    }

    fn document(&self, url: &str) -> Result<Option<Arc<Value>>> {
        if let Some(known) = locked(&self.documents).get(url) {
            return Ok(Some(Arc::clone(known)));
        }
        if let Some(known) = local_id(url).and_then(|id| self.local(id)) {
            return Ok(Some(known));
        }
        let Some(text) = embedded::find(url) else { return Ok(None) };
        let document = Arc::new(parsed(url, text)?);
        keep(&self.documents, url.to_owned(), Arc::clone(&document));
        Ok(Some(document))
    }

    fn add(&self, part: &Value, terms: &mut Terms, depth: usize, n_documents: &mut usize, trusted: bool) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(
                Error::bad(format!("contexts refer to contexts more than {DEPTH_MAX} deep, perhaps in a circle")).within("@context")
            );
        }
        match part {
            Value::Null => {
                terms.clear();
                Ok(())
            }
            Value::Object(map) => terms.add(map, trusted),
            Value::Array(list) => list.iter().try_for_each(|p| self.add(p, terms, depth + 1, n_documents, trusted)),
            Value::String(url) if embedded::is_core(url) => Ok(()),
            Value::String(url) => {
                *n_documents += 1;
                if *n_documents > DOCUMENTS_MAX {
                    return Err(Error::bad(format!("more than {DOCUMENTS_MAX} documents are named")).within("@context"));
                }
                let document = self.fetched(url)?;
                self.add(inner_context(&document, url)?, terms, depth + 1, n_documents, embedded::find(url).is_some())
            }
            other => Err(wrong_part(other)),
        }
    }

    fn fetched(&self, url: &str) -> Result<Arc<Value>> {
        if let Some(document) = self.document(url)? {
            return Ok(document);
        }
        let why = match &self.loader {
            None => "it is not among the embedded contexts and this node fetches none".to_owned(),
            Some(loader) => match loader.load(url) {
                Ok(text) => {
                    let document = Arc::new(parsed(url, &text)?);
                    keep(&self.documents, url.to_owned(), Arc::clone(&document));
                    return Ok(document);
                }
                Err(e) => e.reason,
            },
        };
        Err(Error::unavailable(format!("cannot fetch `{}`: {why}", shown(url))).within("@context"))
    }
}

/// The local id in the URL of a context that a node of this kind serves itself.
#[must_use]
pub fn local_id(url: &str) -> Option<&str> {
    let (_, id) = url.rsplit_once(LOCAL_PATH)?;
    (!id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(id)
}

/// The parts of a context in order, arrays flattened, the core context left out: it is implicit.
fn user_parts(context: &Value, parts: &mut Vec<Value>, depth: usize) -> Result<()> {
    match context {
        Value::String(url) if embedded::is_core(url) => {}
        Value::String(url) if is_http(url) => parts.push(context.clone()),
        Value::String(url) => {
            return Err(Error::bad(format!("`{}` is not the URL of a context (expected `http(s)://…`)", shown(url))).within("@context"));
        }
        Value::Object(map) => {
            if !map.is_empty() {
                parts.push(context.clone());
            }
        }
        Value::Array(list) if depth < DEPTH_MAX => list.iter().try_for_each(|p| user_parts(p, parts, depth + 1))?,
        Value::Null if depth > 0 => parts.push(Value::Null),
        other => return Err(wrong_part(other)),
    }
    if parts.len() > DOCUMENTS_MAX {
        return Err(Error::bad(format!("more than {DOCUMENTS_MAX} contexts")).within("@context"));
    }
    Ok(())
}

fn wrong_part(found: &Value) -> Error {
    Error::bad(format!("expected a URL, an object or an array of these, found {}", described(found))).within("@context")
}

fn is_http(url: &str) -> bool {
    (url.starts_with("https://") || url.starts_with("http://")) && url::Url::parse(url).is_ok()
}

fn parsed(url: &str, text: &str) -> Result<Value> {
    if text.len() > CONTEXT_BYTES_MAX {
        return Err(
            Error::bad(format!("`{}` has {} bytes, more than the limit of {CONTEXT_BYTES_MAX}", shown(url), text.len())).within("@context")
        );
    }
    serde_json::from_str(text).map_err(|e| Error::bad(format!("`{}` is not JSON: {e}", shown(url))).within("@context"))
}

fn inner_context<'a>(document: &'a Value, url: &str) -> Result<&'a Value> {
    document
        .get("@context")
        .ok_or_else(|| Error::bad(format!("`{}` is not a context: it has no member `@context`", shown(url))).within("@context"))
}

fn keep<T>(table: &Mutex<IndexMap<String, T>>, key: String, value: T) {
    let mut table = locked(table);
    while table.len() >= CONTEXTS_MAX {
        table.shift_remove_index(0);
    }
    table.insert(key, value);
}

fn id_of(key: &str) -> SmolStr {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        key.hash(&mut hasher);
        hasher.finish()
    };
    SmolStr::new(format!("{:016x}{:016x}", half(0), half(1)))
}
