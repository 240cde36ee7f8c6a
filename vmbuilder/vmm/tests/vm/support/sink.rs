//! An output sink that keeps outputs as a flat list of paths.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use igloo_build::{BuildError, OutputSink, RelativePath};
use igloo_castore::NodeName;
use igloo_castore::tree::TreeEvent;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Directory,
    File { contents: Vec<u8>, executable: bool },
    Symlink(String),
}

/// Everything taken, by path from the build's root.
pub type Outputs = Arc<Mutex<BTreeMap<String, Entry>>>;

#[derive(Debug, Default)]
pub struct MapSink {
    outputs: Outputs,
    path: Vec<String>,
    open_file: String,
}

impl MapSink {
    pub fn new() -> (Self, Outputs) {
        let sink = Self::default();
        let outputs = Arc::clone(&sink.outputs);
        (sink, outputs)
    }

    fn put(&self, name: Option<NodeName>, entry: Entry) -> String {
        let name = name.map(|name| name.to_string());
        let path: Vec<_> = self.path.iter().cloned().chain(name).collect();
        let path = path.join("/");
        self.outputs.lock().unwrap().insert(path.clone(), entry);
        path
    }
}

#[async_trait]
impl OutputSink for MapSink {
    async fn begin(&mut self, output: &RelativePath) -> Result<(), BuildError> {
        self.path = vec![output.to_string()];
        Ok(())
    }

    async fn event(&mut self, event: TreeEvent) -> Result<(), BuildError> {
        match event {
            TreeEvent::DirectoryBegin { name } => {
                self.put(name.clone(), Entry::Directory);
                // the root has no name of its own; its place on the stack is an empty one
                self.path.extend(name.map(|name| name.to_string()));
            }
            TreeEvent::DirectoryEnd => {
                if self.path.len() > 1 {
                    self.path.pop();
                }
            }
            TreeEvent::FileBegin { name, executable, .. } => {
                let contents = Vec::new();
                self.open_file = self.put(name, Entry::File { contents, executable });
            }
            TreeEvent::FileData(bytes) => {
                let mut outputs = self.outputs.lock().unwrap();
                let Some(Entry::File { contents, .. }) = outputs.get_mut(&self.open_file) else {
                    panic!("data of no file");
                };
                contents.extend_from_slice(&bytes);
            }
            TreeEvent::Symlink { name, target } => {
                self.put(name, Entry::Symlink(target.to_string()));
            }
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), BuildError> {
        Ok(())
    }
}
