//! A world whose builds are answered when the test says so.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use igloo_eval::io::{
    EvalIo, FetchRequest, Fetched, FileType, ImportPath, IoError, MemoryIo, Notice, Pending, Started,
};
use igloo_eval::{ContextElem, Evaluation, Format, Origin, Settings};
use nix_compat::derivation::Derivation;
use nix_compat::store_path::{StoreDir, StorePath, StorePathName};

type Rewrites = Vec<(String, String)>;

/// When an answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// At once: the evaluation blocks, as with a world that cannot do better.
    Blocking,
    /// When this many are asked for at one time; with fewer, everything asked for fails.
    Together(usize),
    /// One at a time, in an order made from this number.
    Shuffled(u64),
    /// One at a time, in the order asked for; after this many, never again.
    GivesUpAfter(usize),
}

/// The world of a test: a derivation's output holds its `text`, unless that begins with `fail`.
pub struct World {
    memory: MemoryIo,
    answers: Answers,
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    derivations: RefCell<BTreeMap<StorePath, Derivation>>,
    files: RefCell<BTreeMap<Vec<u8>, Vec<u8>>>,
    asks: RefCell<Vec<Ask>>,
    log: RefCell<Vec<String>>,
    /// The most asks on their way at one time.
    most: Cell<usize>,
    random: Cell<u64>,
    waits: Cell<usize>,
}

struct Ask {
    id: usize,
    name: String,
    answer: Option<Result<(), String>>,
    is_open: bool,
}

struct Ticket {
    state: Rc<State>,
    id: usize,
    elems: Vec<ContextElem>,
}

impl World {
    pub fn new(answers: Answers) -> Rc<Self> {
        let dir = StoreDir::new("/nix/store").expect("a store directory");
        let state = Rc::new(State::default());
        if let Answers::Shuffled(seed) = answers {
            state.random.set(seed | 1);
        }
        Rc::new(Self {
            memory: MemoryIo::new(dir),
            answers,
            state,
        })
    }

    /// What happened, in order: `ask NAME`, `answer NAME`, `forget NAME`, `write NAME`, `trace TEXT`.
    pub fn log(&self) -> Vec<String> {
        self.state.log.borrow().clone()
    }

    pub fn count(&self, event: &str) -> usize {
        self.log().iter().filter(|known| *known == event).count()
    }

    pub fn most(&self) -> usize {
        self.state.most.get()
    }

    /// Asks that nobody has dropped and nobody was answered.
    pub fn open(&self) -> usize {
        self.state.open().len()
    }

    pub fn eval(self: &Rc<Self>, text: &str, format: Format) -> Result<String, String> {
        self.with(|evaluation| {
            let root = evaluation.eval_text(text.as_bytes(), Origin::String)?;
            evaluation.print(root, format, true)
        })
    }

    /// Runs on an evaluation over this world; errors come as `--show-trace` prints them.
    pub fn with(
        self: &Rc<Self>,
        f: impl FnOnce(&mut Evaluation) -> Result<Vec<u8>, igloo_eval::Error>,
    ) -> Result<String, String> {
        let settings = Settings {
            show_trace: true,
            ..Settings::default()
        };
        let mut evaluation = Evaluation::new(settings, Rc::clone(self) as Rc<dyn EvalIo>);
        let result = f(&mut evaluation);
        assert_eq!(self.open(), 0, "an ask outlived the call that led to it");
        result
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .map_err(|error| error.render(true))
    }
}

impl State {
    fn log(&self, event: String) {
        self.log.borrow_mut().push(event);
    }

    fn ask(self: &Rc<Self>, name: String, elems: Vec<ContextElem>) -> Ticket {
        self.log(format!("ask {name}"));
        let id = self.asks.borrow().len();
        self.asks.borrow_mut().push(Ask {
            id,
            name,
            answer: None,
            is_open: true,
        });
        self.most.set(self.most.get().max(self.open().len()));
        Ticket {
            state: Rc::clone(self),
            id,
            elems,
        }
    }

    fn open(&self) -> Vec<usize> {
        let asks = self.asks.borrow();
        let open = asks.iter().filter(|ask| ask.is_open && ask.answer.is_none());
        open.map(|ask| ask.id).collect()
    }

    fn random(&self, below: usize) -> usize {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        usize::try_from(x % below as u64).expect("below a usize")
    }

    /// Builds what one element of a context names.
    fn build(&self, elem: &ContextElem) -> Result<(), String> {
        let ContextElem::Built { drv, .. } = elem else {
            return Ok(());
        };
        let dir = StoreDir::default();
        let path = dir.parse_bytes(drv).expect("a store path");
        let derivations = self.derivations.borrow();
        let derivation = derivations.get(&path).expect("it was written before");
        let text = derivation
            .env
            .get(b"text".as_slice())
            .cloned()
            .unwrap_or_default();
        if text.starts_with(b"fail") {
            return Err(format!("build of '{}' failed", derivation.name));
        }
        for (name, output) in &derivation.outputs {
            let out = output.path(&dir, &derivation.name, name).expect("a path");
            let out = dir.print(&out.expect("it is known before the build"));
            self.files.borrow_mut().insert(out.into_bytes(), text.clone());
        }
        Ok(())
    }

    fn finish(&self, id: usize, result: Result<(), String>) {
        let ask = &mut self.asks.borrow_mut()[id];
        self.log(format!("answer {}", ask.name));
        ask.answer = Some(result);
    }
}

fn name_of(elem: &ContextElem) -> String {
    let path = String::from_utf8_lossy(elem.path()).into_owned();
    let name = path.rsplit('/').next().unwrap_or_default();
    name[33..].trim_end_matches(".drv").to_owned()
}

impl Pending<Rewrites> for Ticket {
    fn poll(&mut self) -> Option<Result<Rewrites, IoError>> {
        let answer = self.state.asks.borrow()[self.id].answer.clone()?;
        let built = answer.and_then(|()| self.elems.iter().try_for_each(|elem| self.state.build(elem)));
        Some(built.map(|()| Vec::new()).map_err(|what| IoError::Build { what }))
    }
}

impl Pending<Fetched> for Ticket {
    fn poll(&mut self) -> Option<Result<Fetched, IoError>> {
        let ask = &self.state.asks.borrow()[self.id];
        let answer = ask.answer.clone()?;
        let name = StorePathName::new(&ask.name).expect("a name");
        let path = StoreDir::default().text_path(&name, &[7; 32], &BTreeSet::new());
        let fetched = Fetched {
            path,
            attrs: Vec::new(),
        };
        Some(answer.map(|()| fetched).map_err(|what| IoError::Fetch { what }))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let ask = &mut self.state.asks.borrow_mut()[self.id];
        ask.is_open = false;
        if ask.answer.is_none() {
            self.state.log(format!("forget {}", ask.name));
        }
    }
}

impl EvalIo for World {
    fn store_dir(&self) -> &StoreDir {
        self.memory.store_dir()
    }
    fn read_file(&self, path: &[u8]) -> Result<Vec<u8>, IoError> {
        match self.state.files.borrow().get(path) {
            Some(text) => Ok(text.clone()),
            None => self.memory.read_file(path),
        }
    }
    fn file_type(&self, path: &[u8]) -> Result<Option<FileType>, IoError> {
        if self.state.files.borrow().contains_key(path) {
            return Ok(Some(FileType::Regular));
        }
        self.memory.file_type(path)
    }
    fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, IoError> {
        self.memory.read_link(path)
    }
    fn read_dir(&self, path: &[u8]) -> Result<Vec<(Vec<u8>, FileType)>, IoError> {
        self.memory.read_dir(path)
    }
    fn env(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.memory.env(name)
    }
    fn import_path(&self, request: ImportPath<'_>) -> Result<StorePath, IoError> {
        self.memory.import_path(request)
    }
    fn add_text(&self, name: &str, text: &[u8], references: &[StorePath]) -> Result<StorePath, IoError> {
        self.memory.add_text(name, text, references)
    }
    fn write_derivation(
        &self,
        path: &StorePath,
        derivation: Arc<Derivation>,
        _: Vec<u8>,
    ) -> Result<(), IoError> {
        self.state.log(format!("write {}", derivation.name));
        let mut known = self.state.derivations.borrow_mut();
        let inputs: BTreeSet<_> = derivation.input_drvs.keys().cloned().collect();
        assert!(
            inputs.iter().all(|input| known.contains_key(input)),
            "{} was written before its inputs",
            derivation.name
        );
        let old = known.insert(path.clone(), Derivation::clone(&derivation));
        assert!(old.is_none(), "{} was written twice", derivation.name);
        Ok(())
    }
    fn read_derivation(&self, path: &StorePath) -> Result<Derivation, IoError> {
        self.memory.read_derivation(path)
    }
    fn is_valid_path(&self, _path: &StorePath) -> Result<bool, IoError> {
        Ok(false)
    }
    fn lacks_path(&self, _path: &StorePath) -> Result<bool, IoError> {
        Ok(true)
    }
    fn references(&self, path: &StorePath) -> Result<Vec<StorePath>, IoError> {
        self.memory.references(path)
    }

    fn realise(&self, context: &[ContextElem]) -> Result<Rewrites, IoError> {
        for elem in context {
            self.state.log(format!("ask {}", name_of(elem)));
            self.state.build(elem).map_err(|what| IoError::Build { what })?;
            self.state.log(format!("answer {}", name_of(elem)));
        }
        Ok(Vec::new())
    }

    fn start_realise<'a>(&'a self, context: &[ContextElem]) -> Started<'a, Rewrites> {
        if self.answers == Answers::Blocking {
            return Started::Done(self.realise(context));
        }
        let name = context.first().map(name_of).unwrap_or_default();
        Started::Pending(Box::new(self.state.ask(name, context.to_vec())))
    }

    fn fetch(&self, request: &FetchRequest) -> Result<Fetched, IoError> {
        self.memory.fetch(request)
    }

    fn start_fetch<'a>(&'a self, request: &FetchRequest) -> Started<'a, Fetched> {
        match request {
            FetchRequest::Url { name, .. } => {
                let path = self.state.ask(name.clone(), Vec::new());
                Started::Pending(Box::new(path))
            }
            _ => Started::Done(self.fetch(request)),
        }
    }

    fn wait_any(&self) -> Result<(), IoError> {
        let open = self.state.open();
        assert!(!open.is_empty(), "it waits, but nothing is on its way");
        self.state.waits.set(self.state.waits.get() + 1);
        if let Answers::GivesUpAfter(waits) = self.answers
            && self.state.waits.get() > waits
        {
            return Err(IoError::Unsupported {
                what: "nobody answers any more".to_owned(),
            });
        }
        match self.answers {
            Answers::Together(count) if open.len() < count => {
                for id in &open {
                    let what = format!("only {} of {count} were asked for together", open.len());
                    self.state.finish(*id, Err(what));
                }
            }
            Answers::Together(_) => open.iter().for_each(|id| self.state.finish(*id, Ok(()))),
            Answers::Shuffled(_) | Answers::Blocking => {
                let id = open[self.state.random(open.len())];
                self.state.finish(id, Ok(()));
            }
            Answers::GivesUpAfter(_) => self.state.finish(open[0], Ok(())),
        }
        Ok(())
    }

    fn notice(&self, notice: Notice) {
        if let Notice::Trace(text) = notice {
            self.state.log(format!("trace {text}"));
        }
    }
}
