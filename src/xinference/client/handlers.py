"""Public names of the model handles. The handles of audio, flexible, image and video models raise an error."""

from xinference.client import handles

ChatModelHandle = handles.RESTfulChatModelHandle
EmbeddingModelHandle = handles.RESTfulEmbeddingModelHandle
GenerateModelHandle = handles.RESTfulGenerateModelHandle
RerankModelHandle = handles.RESTfulRerankModelHandle
AudioModelHandle = handles.RESTfulUnservedModelHandle
FlexibleModelHandle = handles.RESTfulUnservedModelHandle
ImageModelHandle = handles.RESTfulUnservedModelHandle
VideoModelHandle = handles.RESTfulUnservedModelHandle
AsyncChatModelHandle = handles.AsyncRESTfulChatModelHandle
AsyncEmbeddingModelHandle = handles.AsyncRESTfulEmbeddingModelHandle
AsyncGenerateModelHandle = handles.AsyncRESTfulGenerateModelHandle
AsyncRerankModelHandle = handles.AsyncRESTfulRerankModelHandle
AsyncAudioModelHandle = handles.AsyncRESTfulUnservedModelHandle
AsyncFlexibleModelHandle = handles.AsyncRESTfulUnservedModelHandle
AsyncImageModelHandle = handles.AsyncRESTfulUnservedModelHandle
AsyncVideoModelHandle = handles.AsyncRESTfulUnservedModelHandle
