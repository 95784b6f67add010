# dgviz in a container: docs/how-to/run-in-a-container.md.
#   docker build --tag dgviz .                            for CPUs
#   docker build --tag dgviz --build-arg DEVICE=cuda .    for NVIDIA GPUs too; the host brings the driver
FROM python:3.11-slim

# Text in figures that are saved as PNG is drawn with the system's fonts.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends fonts-dejavu-core \
    && rm -rf /var/lib/apt/lists/*

# What checkpoints, exports and caches are kept in is a volume; the account can write there and at home.
RUN useradd --create-home --uid 1000 dgviz && install --directory --owner=dgviz /data

WORKDIR /app
COPY requirements.txt ./
ARG DEVICE=cpu
# The torch of the package index brings CUDA; that of PyTorch's own index for CPUs is a tenth of it.
RUN if [ "$DEVICE" = cpu ]; then \
        pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "$(grep ^torch== requirements.txt)"; \
    fi \
    && pip install --no-cache-dir --requirement requirements.txt

COPY pyproject.toml README.md LICENSE ./
COPY dgviz ./dgviz
RUN pip install --no-cache-dir --no-deps . && python -m dgviz --version

ENV DGVIZ_ROOTS=/data \
    DGVIZ_CACHE_DIR=/data/.dgviz/cache \
    DGVIZ_STATE_DIR=/data/.dgviz/state \
    HF_HOME=/data/.huggingface \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
VOLUME /data
WORKDIR /data
USER 1000
EXPOSE 8501
HEALTHCHECK --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8501/_stcore/health')"]
ENTRYPOINT ["dgviz"]
CMD ["app", "--address", "0.0.0.0", "--port", "8501", "--no-browser"]
