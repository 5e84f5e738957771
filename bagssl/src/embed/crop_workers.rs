//! The threads that decode images and cut patches, as they are asked to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bagssl_core::bag::{Bag, Grid};
use bagssl_core::patch::Crop;
use bagssl_core::random::Address;
use bagssl_data::{Budget, Cutter, Decoded, Image, OnBadImage};

use super::EmbedJob;
use crate::error::{Error, Result};

/// A decoded image, with its crops in the order in which they are looked at.
pub(super) struct DecodedImage {
    image: Decoded,
    /// When the work on it began: before it was read.
    pub(super) started: Instant,
    pub(super) crops: Vec<Crop>,
}

/// A request to a thread.
enum Request {
    /// To decode this image, and cut so many of its first patches.
    Decode(usize, usize),
    /// To cut more patches of an image.
    Crop(usize, Arc<DecodedImage>, std::ops::Range<usize>),
}

impl Request {
    fn image(&self) -> usize {
        let (Request::Decode(image, _) | Request::Crop(image, ..)) = self;
        *image
    }
}

/// The result of a request.
pub(super) enum Response {
    /// Patches of an image.
    Crops(CropBatch),
    /// There is no memory for this image before another is done with.
    NoMemory(usize),
    /// This image is left out, and why.
    Unusable(usize, String),
}

/// Some patches of an image, cut.
pub(super) struct CropBatch {
    pub(super) image: usize,
    pub(super) decoded: Arc<DecodedImage>,
    pub(super) range: std::ops::Range<usize>,
    pub(super) values: Vec<f32>,
}

/// The threads. They end when this is dropped.
pub(super) struct CropWorkers {
    requests: Sender<Request>,
    responses: Receiver<Result<Response>>,
    /// Answers that are still to come.
    pending: usize,
}

impl CropWorkers {
    /// Starts so many threads.
    pub(super) fn start<'scope>(
        scope: &'scope std::thread::Scope<'scope, '_>,
        job: &'scope EmbedJob<'_>,
        threads: usize,
        budget: &'scope Arc<Budget>,
    ) -> CropWorkers {
        let ((requests, queue), (sender, responses)) = (channel::<Request>(), channel());
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let (queue, sender) = (queue.clone(), sender.clone());
            scope.spawn(move || {
                let spec = job.spec;
                let mut cutter = Cutter::new(spec.patch.input(), spec.filter, spec.normalization);
                loop {
                    let request = queue.lock().expect("no thread panics with it").recv();
                    // A closed channel means that nobody wants more.
                    let Ok(request) = request else { return };
                    let image = request.image();
                    let response = AssertUnwindSafe(|| job.process(request, &mut cutter, budget));
                    // An answer that never comes would be waited for.
                    let response = catch_unwind(response)
                        .unwrap_or_else(|_| Err(Error::Panicked { name: job.dataset.name(image).into() }));
                    if sender.send(response).is_err() {
                        return;
                    }
                }
            });
        }
        CropWorkers { requests, responses, pending: 0 }
    }

    pub(super) fn open(&mut self, image: usize, patches: usize) {
        self.request(Request::Decode(image, patches));
    }

    pub(super) fn crop(&mut self, image: usize, decoded: Arc<DecodedImage>, range: std::ops::Range<usize>) {
        self.request(Request::Crop(image, decoded, range));
    }

    fn request(&mut self, request: Request) {
        self.pending += 1;
        self.requests.send(request).expect("the threads run until this is dropped");
    }

    /// The next answer; `None` if nothing was asked for that has not been answered.
    pub(super) fn next(&mut self) -> Result<Option<Response>> {
        if self.pending == 0 {
            return Ok(None);
        }
        self.pending -= 1;
        self.responses.recv().expect("the threads run until this is dropped").map(Some)
    }
}

impl EmbedJob<'_> {
    fn process(&self, request: Request, cutter: &mut Cutter, budget: &Arc<Budget>) -> Result<Response> {
        let (image, decoded, range) = match request {
            Request::Decode(image, patches) => {
                let decoded = match self.decode(image, budget)? {
                    Ok(Some(decoded)) => decoded,
                    Ok(None) => return Ok(Response::NoMemory(image)),
                    Err(reason) => return Ok(Response::Unusable(image, reason)),
                };
                let range = 0..patches.min(decoded.crops.len());
                (image, Arc::new(decoded), range)
            }
            Request::Crop(image, decoded, range) => (image, decoded, range),
        };
        let mut values = Vec::new();
        decoded.crops[range.clone()].iter().for_each(|&crop| cutter.cut(&decoded.image, crop, &mut values));
        Ok(Response::Crops(CropBatch { image, decoded, range, values }))
    }

    /// Decodes an image and chooses its patches, if there is room, or says why it is left out.
    fn decode(&self, image: usize, budget: &Arc<Budget>) -> Result<std::result::Result<Option<DecodedImage>, String>> {
        let started = Instant::now();
        let decoded = self.dataset.try_decode(image, budget, &|size| self.bytes_beside(size));
        let decoded = match self.options.on_bad_image.skip_or_fail(decoded)? {
            Ok(Some(decoded)) => decoded,
            Ok(None) => return Ok(Ok(None)),
            Err(reason) => return Ok(Err(reason)),
        };
        match self.crops(&decoded) {
            Ok(crops) => Ok(Ok(Some(DecodedImage { image: decoded, started, crops }))),
            Err(error) if self.options.on_bad_image == OnBadImage::Skip => Ok(Err(error.to_string())),
            Err(error) => Err(Error::Patch { name: self.dataset.name(image).into(), error }),
        }
    }

    /// The crops of an image, in the order in which they are looked at.
    fn crops(&self, decoded: &Image) -> bagssl_core::Result<Vec<Crop>> {
        // Drawn by the image itself, so that it has the same patches wherever it comes from.
        let address = Address { image: decoded.fingerprint(), ..Address::default() };
        let bag = self.options.patches.bag(&self.spec.patch, decoded.size())?;
        Ok(match bag {
            Bag::Grid { spec, stride } if self.is_anytime() => {
                let grid = Grid::new(spec, decoded.size(), stride)?;
                grid.order(address).map(|patch| grid.crop(patch)).collect()
            }
            bag => bag.crops(decoded.size(), address)?,
        })
    }
}
