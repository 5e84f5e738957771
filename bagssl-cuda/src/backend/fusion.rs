//! The operations under Burn's fusion: each is a custom operation of a fusion stream.

use std::fmt;
use std::marker::PhantomData;

use bagssl_core::model::Reading;
use burn::tensor::{DType, Shape};
use burn_fusion::client::GlobalFusionClient;
use burn_fusion::stream::{Operation as Queued, OperationStreams};
use burn_fusion::{Fusion, FusionBackend, FusionRuntime, NoOp};
use burn_ir::{CustomOpIr, HandleContainer, InitOperationIr, OperationIr, TensorIr};

use crate::ops::form::Form;
use crate::ops::operation::Operation;
use crate::ops::run::{OnCuda, Raw, outputs};

#[allow(private_interfaces, reason = "nobody outside implements or calls it")]
impl<B: FusionBackend + OnCuda> OnCuda for Fusion<B> {
    fn run(operation: Operation, inputs: Vec<Raw<Self>>) -> Vec<Raw<Self>> {
        let forms = outputs(&operation, &inputs);
        let Some(first) = inputs.first() else { return Vec::new() };
        let client = first.client.clone();
        let streams = OperationStreams::with_inputs(&inputs);
        let new = |form: Form| TensorIr::uninit(client.create_empty_handle(), Shape::from(form.shape), form.dtype);
        let outputs: Vec<TensorIr> = forms.into_iter().map(new).collect();
        let inputs: Vec<TensorIr> = inputs.into_iter().map(|tensor| tensor.into_ir()).collect();
        let tensors = CustomOpIr::new(operation.name(), &inputs, &outputs);
        client.register(
            streams,
            OperationIr::Custom(tensors.clone()),
            Custom::<B> { tensors, operation, backend: PhantomData },
        )
    }

    fn upload(values: Vec<f32>, dims: [usize; 4], device: &Self::Device) -> Raw<Self> {
        let client = GlobalFusionClient::<B::FusionRuntime>::load(device);
        let tensor = B::upload(values, dims, device);
        let handle = B::float_tensor_handle(tensor);
        let out = TensorIr::uninit(client.register_tensor_handle(handle), Shape::from(dims), DType::F32);
        let made = OperationIr::Init(InitOperationIr { out });
        let mut outputs = client.register(OperationStreams::default(), made, NoOp::<B>::new());
        outputs.pop().expect("an operation gives as many tensors as it says")
    }

    fn read_later(values: Raw<Self>) -> Reading {
        // This executes all operations registered so far, which queues them on the device.
        B::read_later(values.client.clone().resolve_tensor_float::<B>(values))
    }
}

/// An operation in a fusion stream with its tensors. It runs on the backend below the fusion.
struct Custom<B> {
    tensors: CustomOpIr,
    operation: Operation,
    backend: PhantomData<fn() -> B>,
}

impl<B> fmt::Debug for Custom<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.operation)
    }
}

impl<B: FusionBackend + OnCuda> Queued<B::FusionRuntime> for Custom<B> {
    fn execute(&self, handles: &mut HandleContainer<<B::FusionRuntime as FusionRuntime>::FusionHandle>) {
        let inputs = self.tensors.inputs.iter().map(|tensor| handles.get_float_tensor::<B>(tensor)).collect();
        for (output, tensor) in self.tensors.outputs.iter().zip(B::run(self.operation.clone(), inputs)) {
            handles.register_float_tensor::<B>(&output.id, tensor);
        }
    }
}
