//! Nix's binary caches, on a server or in a directory.
//!
//! Invariants
//! - a path is asked for once at a time; offers, absences and refusals are remembered for their time, failures are not;
//! - the cache is asked what it is before it is asked for paths: one for another store directory is asked nothing else;
//! - no secret is in its name.
//!
//! Source: Nix 2.36 `src/libstore/{binary-cache-store,http-binary-cache-store,local-binary-cache-store}.cc`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::Uri;
use igloo_castore::store::StoreName;
use igloo_status::Code;
use igloo_store::{DeclaredNar, PathInfo, Store};
use nix_compat::NarInfo;
use nix_compat::store_path::{StoreDir, StorePath};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

use crate::cache_info::TEXT_SIZE_MAX;
use crate::compression::Compression;
use crate::fetch::{self, Archive};
use crate::http::{Download, HttpClient, HttpOptions, RequestError, TlsError};
use crate::memo::Memo;
use crate::progress::Progress;
use crate::substituter::{
    CacheInfo, FetchError, LookUpError, Offer, OfferPlace, Refusal, Substituter, check_dir,
};
use crate::trust::Trust;
use crate::url::{CachePlace, CacheUrl, LocationError, file_of_cache, file_of_directory};

/// Names of keys told of in a refusal.
const KEYS_TOLD_MAX: usize = 8;

/// How a cache is used.
#[derive(Clone, Debug)]
pub struct CacheOptions {
    /// Requests.
    pub http: HttpOptions,
    /// Bytes of the longest narinfo looked at; one reference has about 60.
    pub narinfo_size_max: usize,
    /// How long offers and refusals are remembered.
    pub found_ttl: Duration,
    /// How long it is remembered that there is no offer.
    pub absent_ttl: Duration,
    /// Answers remembered at most.
    pub remembered_max: usize,
}

/// Narinfos up to 2 MiB, remembered for 10 minutes, absences for 1; 65,536 answers.
impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            http: HttpOptions::default(),
            narinfo_size_max: 2 << 20,
            found_ttl: Duration::from_secs(600),
            absent_ttl: Duration::from_secs(60),
            remembered_max: 1 << 16,
        }
    }
}

type Remembered<V> = Result<V, Arc<Refusal>>;

/// A binary cache.
#[derive(Debug)]
pub struct HttpBinaryCache {
    name: StoreName,
    url: CacheUrl,
    place: Place,
    dir: StoreDir,
    trust: Trust,
    options: CacheOptions,
    info: Memo<(), Remembered<CacheInfo>>,
    offers: Memo<StorePath, Remembered<Option<Arc<Offer>>>>,
}

#[derive(Debug)]
enum Place {
    Http { base: Uri, client: Box<HttpClient> },
    Directory(PathBuf),
}

impl HttpBinaryCache {
    /// A cache for stores of `dir`; nothing is asked yet.
    ///
    /// # Errors
    /// Connections cannot be protected as the options say.
    pub fn new(
        url: CacheUrl,
        dir: StoreDir,
        trust: &Trust,
        options: CacheOptions,
    ) -> Result<Self, OpenCacheError> {
        let place = match &url.place {
            CachePlace::Http(base) => Place::Http {
                base: base.clone(),
                client: Box::new(HttpClient::new(options.http.clone()).map_err(|source| {
                    OpenCacheError::Tls {
                        url: url.to_string(),
                        source,
                    }
                })?),
            },
            CachePlace::Directory(dir) => Place::Directory(dir.clone()),
        };
        Ok(Self {
            name: url.to_string().as_str().into(),
            place,
            dir,
            trust: if url.trusted { Trust::Anyone } else { trust.clone() },
            info: Memo::new(1),
            offers: Memo::new(options.remembered_max),
            options,
            url,
        })
    }

    async fn ask_info(&self) -> Result<Remembered<CacheInfo>, RequestError> {
        let file = "nix-cache-info";
        let url = self.display(file);
        let Some(bytes) = self.get(file, TEXT_SIZE_MAX).await? else {
            return Ok(Err(Refusal::NotACache { url }.into()));
        };
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return Ok(Err(Refusal::NotText { url }.into()));
        };
        let mut info = match CacheInfo::parse(text, &self.dir) {
            Ok(info) => info,
            Err(source) => return Ok(Err(Refusal::CacheInfo { url, source }.into())),
        };
        if info.store_dir != self.dir {
            return Ok(Err(Refusal::StoreDir {
                cache: self.name.to_string(),
                theirs: info.store_dir.as_str().to_owned(),
                ours: self.dir.as_str().to_owned(),
            }
            .into()));
        }
        info.priority = self.url.priority.unwrap_or(info.priority);
        info.want_mass_query = self.url.want_mass_query.unwrap_or(info.want_mass_query);
        Ok(Ok(info))
    }

    async fn ask_offer(&self, path: &StorePath) -> Result<Remembered<Option<Arc<Offer>>>, RequestError> {
        let file = format!("{}.narinfo", String::from_utf8_lossy(&path.hash_part()));
        let Some(bytes) = self.get(&file, self.options.narinfo_size_max).await? else {
            return Ok(Ok(None));
        };
        let offer = self.read_offer(path, self.display(&file), &bytes);
        Ok(offer.map(|offer| Some(Arc::new(offer))).map_err(Arc::new))
    }

    fn read_offer(&self, path: &StorePath, url: String, bytes: &[u8]) -> Result<Offer, Refusal> {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Err(Refusal::NotText { url });
        };
        let info = match NarInfo::parse(&self.dir, text) {
            Ok(info) => info,
            Err(source) => return Err(Refusal::NarInfo { url, source }),
        };
        if info.store_path != *path {
            return Err(Refusal::OtherPath {
                url,
                asked: path.clone(),
                found: info.store_path,
            });
        }
        let compression: Compression = match info.compression.parse() {
            Ok(compression) => compression,
            Err(source) => return Err(Refusal::Compression { url, source }),
        };
        if let Err(source) = self.locate(&info.url) {
            let location = info.url.chars().take(200).collect();
            return Err(Refusal::Location {
                url,
                location,
                source,
            });
        }
        let nar = DeclaredNar {
            path: info.store_path,
            nar_sha256: info.nar_hash,
            nar_size: info.nar_size,
            references: info.references,
            deriver: info.deriver,
            signatures: info.signatures,
            content_address: info.ca,
        };
        let Some(vouched) = self.trust.vouch(&self.dir, &nar) else {
            let keys = nar
                .signatures
                .iter()
                .map(|signature| signature.key_name().to_owned());
            return Err(Refusal::Untrusted {
                url,
                path: nar.path.clone(),
                signed_by: keys.take(KEYS_TOLD_MAX).collect(),
            });
        };
        Ok(Offer {
            nar,
            vouched,
            download_size: info.file_size,
            from: self.name.clone(),
            place: OfferPlace::Archive {
                url: info.url,
                compression,
                file_hash: info.file_hash,
                file_size: info.file_size,
            },
        })
    }

    async fn get(&self, file: &str, size_max: usize) -> Result<Option<Bytes>, RequestError> {
        match &self.place {
            Place::Http { base, client } => {
                let url = file_of_cache(base, file).map_err(|source| RequestError::Location {
                    url: base.to_string(),
                    location: file.to_owned(),
                    source,
                })?;
                client.get(&url, size_max, &()).await
            }
            Place::Directory(dir) => read_file(&dir.join(file), size_max).await,
        }
    }

    fn locate(&self, file: &str) -> Result<Location, LocationError> {
        Ok(match &self.place {
            Place::Http { base, .. } => Location::Url(file_of_cache(base, file)?),
            Place::Directory(dir) => Location::File(dir.join(file_of_directory(file)?)),
        })
    }

    fn display(&self, file: &str) -> String {
        format!("{}/{file}", self.name)
    }

    async fn open_archive(
        &self,
        url: &str,
        size: Option<u64>,
        size_max: u64,
        progress: &dyn Progress,
    ) -> Result<(String, Source<'_>), FetchError> {
        let location = self.locate(url).map_err(|source| RequestError::Location {
            url: self.name.to_string(),
            location: url.to_owned(),
            source,
        })?;
        match (location, &self.place) {
            (Location::Url(url), Place::Http { client, .. }) => {
                let text = url.to_string();
                match Download::open(client, &url, size, size_max, progress).await? {
                    Some(download) => Ok((text, Source::Http(download))),
                    None => Err(FetchError::Missing { url: text }),
                }
            }
            (Location::Url(url), Place::Directory(_)) => Err(FetchError::Missing { url: url.to_string() }),
            (Location::File(path), _) => match File::open(&path).await {
                Ok(file) => Ok((path.display().to_string(), Source::File { path, file })),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(FetchError::Missing {
                    url: path.display().to_string(),
                }),
                Err(source) => Err(unreadable(&path, source).into()),
            },
        }
    }
}

#[async_trait]
impl Substituter for HttpBinaryCache {
    fn name(&self) -> &StoreName {
        &self.name
    }

    async fn info(&self) -> Result<CacheInfo, LookUpError> {
        let ask = || async {
            let info = self.ask_info().await?;
            Ok::<_, LookUpError>((info, self.options.found_ttl))
        };
        Ok(self.info.get_or_ask(&(), ask).await??)
    }

    async fn look_up(&self, path: &StorePath) -> Result<Option<Arc<Offer>>, LookUpError> {
        self.info().await?;
        let ask = || async {
            let answer = self.ask_offer(path).await?;
            let keep = match &answer {
                Ok(None) => self.options.absent_ttl,
                _ => self.options.found_ttl,
            };
            Ok::<_, LookUpError>((answer, keep))
        };
        Ok(self.offers.get_or_ask(path, ask).await??)
    }

    async fn fetch(
        &self,
        offer: &Offer,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<PathInfo, FetchError> {
        let OfferPlace::Archive {
            url,
            compression,
            file_hash,
            file_size,
        } = &offer.place
        else {
            return Err(FetchError::NotOffered {
                from: self.name.clone(),
                path: offer.nar.path.clone(),
            });
        };
        check_dir(&self.name, &self.dir, store)?;
        let size_max = file_size.unwrap_or_else(|| fetch::compressed_size_max(offer.nar.nar_size));
        let (url, source) = self.open_archive(url, *file_size, size_max, progress).await?;
        let archive = Archive {
            url,
            source,
            size_max,
            compression: *compression,
            file_hash: *file_hash,
            file_size: *file_size,
        };
        archive.fetch(&offer.nar, store, progress).await
    }

    fn forget(&self, path: &StorePath) {
        self.offers.forget(path);
    }
}

enum Location {
    Url(Uri),
    File(PathBuf),
}

/// Where an archive's bytes come from.
pub(crate) enum Source<'a> {
    Http(Download<'a>),
    File { path: PathBuf, file: File },
}

impl Source<'_> {
    /// The next bytes, `None` at the end.
    pub(crate) async fn next(&mut self, progress: &dyn Progress) -> Result<Option<Bytes>, RequestError> {
        match self {
            Self::Http(download) => download.next(progress).await,
            Self::File { path, file } => {
                let mut buffer = Vec::with_capacity(256 << 10);
                match file.read_buf(&mut buffer).await {
                    Ok(0) => Ok(None),
                    Ok(_) => Ok(Some(buffer.into())),
                    Err(source) => Err(unreadable(path, source)),
                }
            }
        }
    }
}

/// Why a cache cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenCacheError {
    /// TLS.
    #[error("{url} cannot be asked")]
    Tls {
        /// The cache.
        url: String,
        /// Why.
        #[source]
        source: TlsError,
    },
}

impl OpenCacheError {
    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Tls { source, .. } => source.code(),
        }
    }
}

async fn read_file(path: &Path, size_max: usize) -> Result<Option<Bytes>, RequestError> {
    let mut file = match File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(unreadable(path, source)),
    };
    let mut bytes = Vec::new();
    let read = (&mut file)
        .take(size_max as u64 + 1)
        .read_to_end(&mut bytes)
        .await;
    match read {
        Ok(_) if bytes.len() > size_max => Err(RequestError::TooLarge {
            url: path.display().to_string(),
            size_max: size_max as u64,
        }),
        Ok(_) => Ok(Some(bytes.into())),
        Err(source) => Err(unreadable(path, source)),
    }
}

fn unreadable(path: &Path, source: io::Error) -> RequestError {
    RequestError::File {
        path: path.display().to_string(),
        source,
    }
}
